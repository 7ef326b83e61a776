"""Losses, calibration and tests of skill: numpy and statistics alone."""
