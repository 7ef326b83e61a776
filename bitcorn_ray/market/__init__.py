"""Bars as checked arrays; timeframes, outcomes, cleaning and quality."""
