"""Features to model: windows, model, losses, the training loop, runs."""
