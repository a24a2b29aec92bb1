"""Docker over a host."""
