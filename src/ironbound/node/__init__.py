"""Builds the sandbox that the log admitted, says what it built, and only then lets the agent run."""
