"""Measurements: each module here defines `run(quick)` and gives rows that `python -m bench` prints."""
