"""Settings: text is parsed into typed parts once, when the program starts."""
