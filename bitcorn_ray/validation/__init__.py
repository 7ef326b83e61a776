"""Does it really work? Splits, calibration, metrics, baselines, tests of skill: numpy and statistics, no torch."""
