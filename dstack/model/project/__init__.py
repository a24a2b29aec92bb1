"""`.dstack/`: read, checked, its variables filled in."""
