"""`./dev release`: builds, tries, measures and signs. None of it is shipped; a host needs no builder."""
