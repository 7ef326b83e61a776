"""Results into what people look at; it knows plain results only."""
