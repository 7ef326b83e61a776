"""From bars and features to arrays for a model: windows, splits, scaling, loading."""
