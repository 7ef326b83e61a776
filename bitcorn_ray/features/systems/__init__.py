"""The built-in feature systems."""
