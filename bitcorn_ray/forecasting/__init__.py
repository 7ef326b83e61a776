"""Forecasts with bands from a run: one partition, many, or live."""
