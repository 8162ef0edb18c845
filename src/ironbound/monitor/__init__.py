"""Looks at running sandboxes through another privilege path, compares them with the log and stops drift."""
