"""`dstack run`."""
