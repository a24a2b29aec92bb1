"""Floor 1, pure: what runs on a host, and how its answer is read."""
