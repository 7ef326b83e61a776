"""Where bars come from: databases, files, exchanges; the meaning of columns; import and export."""
