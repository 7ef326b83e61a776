"""Feature sets bred generation by generation, on the trials of sweeps."""
