"""Cosigns a checkpoint only when it extends the one cosigned before."""
