"""Many trials over walk-forward folds: what they are, what they leave, and what they are worth."""
