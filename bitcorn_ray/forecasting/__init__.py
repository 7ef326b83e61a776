"""Forecasts from a run: one partition, many, and live."""
