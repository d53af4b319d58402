"""Claims about LPG, on whole trainings."""
