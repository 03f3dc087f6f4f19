"""Loads that are checked first, and that happen whole or not at all: ``atomic.load``."""
