"""The evolution of feature sets."""
