"""Floor 2: the bare repositories on the server's side."""
