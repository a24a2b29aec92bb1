"""The HTTP client. It imports floors 0 and 1 alone."""
