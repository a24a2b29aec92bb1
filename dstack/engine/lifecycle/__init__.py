"""A job, from its placement to its end."""
