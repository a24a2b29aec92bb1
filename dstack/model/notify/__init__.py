"""Messages about runs: to whom, about what, and in which form. Pure."""
