"""Turns a bundle and a pin into claims that hold, are refuted or stay unproven, offline and on core alone."""
