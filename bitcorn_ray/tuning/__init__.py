"""Sweeps and the evolution of feature sets over walk-forward folds, leaderboards and reproductions."""
