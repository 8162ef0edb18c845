"""The operator channel: checks signed requests with the kernel and puts them into the log."""
