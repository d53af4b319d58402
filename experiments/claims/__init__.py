"""Claims of the papers, one per module: statement, table over seeds, figure, verdict."""
