"""What runs and sweeps are worth."""
