"""Recipes of the papers, one a file: the docstring is the lab note, `CONFIG` the settings."""
