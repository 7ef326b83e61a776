"""Bars of one partition as checked arrays; timeframes, outcomes, resampling, cleaning and diagnosis."""
