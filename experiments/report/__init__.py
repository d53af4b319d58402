"""Statistics, tables and curves from run folders alone."""
