"""Baselines: simple and econometric models of returns and volatilities."""
