"""OSCAL 1.1.3 and a table for spreadsheets, made of what the verifier says."""
