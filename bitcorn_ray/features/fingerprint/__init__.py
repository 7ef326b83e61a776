"""Identity of code."""
