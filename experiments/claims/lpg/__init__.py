"""Claims about LPG, on trained networks."""
