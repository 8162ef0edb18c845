"""The report: one HTML file that a person reads and that checks itself in the reader's browser."""
