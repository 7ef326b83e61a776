"""Hyperparameter sweeps and the evolution of feature sets over walk-forward folds."""
