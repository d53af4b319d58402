"""Claims about small problems: equations against measurements."""
