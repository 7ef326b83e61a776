"""Where bars come from: databases, files and exchanges; what their columns mean; import and export."""
