"""Native agents: processes in a container, held by our own guard until their start is in the log."""
