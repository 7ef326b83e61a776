"""Neural networks: the network, its encoders, losses and the trainer."""
