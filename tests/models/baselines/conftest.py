"""Bars whose true variance is known."""

from simulated_history import changed_after, simulated  # noqa: F401 - fixtures
