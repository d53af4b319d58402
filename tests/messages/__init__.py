"""Wrong calls and what they must be told, by what is wrong: `tests/test_messages.py` reads them all."""
