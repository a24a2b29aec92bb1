"""Floor 3: the server's state. One SQLite database with one writer. sqlite-utils is imported here only."""
