"""Identity of code: of a function with all that it depends on, and of this package's source by room."""
