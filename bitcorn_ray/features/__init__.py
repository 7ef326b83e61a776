"""Bars to features: rolling windows, the feature systems, their registry."""
