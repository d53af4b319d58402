"""Claims about small problems: equations compared with measurements."""
