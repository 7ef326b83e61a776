"""Hyperparameter sweeps and the evolution of feature sets."""
