"""Where bars come from: databases, files, exchanges; their schema, import and export."""
