"""The command line and its voice; it decides nothing."""
