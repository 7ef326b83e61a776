"""Identity of code: of functions with all they use, and of this package."""
