"""A copy of the server's state in one file, and the way back."""
