"""One loader for each source of data."""
