"""Proves that the kernel can't be made to escalate: solvers, exhaustive search, seeded bugs. Only people run it."""
