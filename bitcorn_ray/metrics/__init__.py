"""Losses, calibration, tests of skill and of selection bias; numpy only."""
