"""Claims about PUGD and RTS-PUGD, on whole trainings."""
