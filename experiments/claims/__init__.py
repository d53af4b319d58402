"""Claims of the papers, one a module: statement, table over seeds, figure, verdict."""
