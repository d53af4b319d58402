"""Claims about PUGD and RTS-PUGD, on trained networks."""
