"""Windows, targets, scaling and folds: from features and bars to arrays for a model."""
