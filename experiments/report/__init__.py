"""Statistics, tables and curves, created from run folders only."""
