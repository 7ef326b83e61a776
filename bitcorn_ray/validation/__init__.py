"""Does it really work? Splits and calibration; numpy and statistics, no torch."""
