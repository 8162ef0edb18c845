"""Ironbound: governs AI agents, and proves afterwards what they were allowed to do and did."""

__version__ = "0.1.0"
