"""Encoders of windows: one file an architecture."""
