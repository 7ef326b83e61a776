"""Raw bars in, clean bars out: databases, files, what is wrong with them."""
