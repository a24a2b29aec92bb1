"""A runner: how to reach it, what it has, uses and allows."""
