"""Agents in virtual machines: a kernel of their own, held by our own guard until their start is in the log."""
