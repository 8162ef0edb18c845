"""Exports the log and its artifacts as one file that anyone can verify offline."""
