"""Models of returns and volatilities behind one interface: networks, boosting, baselines."""
