"""Wrong calls and the messages they must give, by kind of mistake, for `tests/test_messages.py`."""
