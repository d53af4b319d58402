"""Settings: from text to typed parts, once, at the edge."""
