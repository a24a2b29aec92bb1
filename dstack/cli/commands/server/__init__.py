"""`dstack server`."""
