"""File formats: CSV, JSON, and what opens each."""
