"""What the forecasts of runs and sweeps are worth, compared with baselines."""
