"""Ironbound: governs AI agents, and proves afterwards what they were allowed to do and did."""
