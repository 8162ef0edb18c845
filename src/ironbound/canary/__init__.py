"""Hostile agents that try to escape in production, bound to the monitor's nonce."""
