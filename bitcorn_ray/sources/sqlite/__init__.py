"""Bars in SQLite databases."""
