"""The agent channel: decides each call with the kernel, logs the intent, acts, logs the outcome."""
