"""Results as tables for the terminal, pages and pictures."""
