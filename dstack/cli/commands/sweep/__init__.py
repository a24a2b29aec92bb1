"""`dstack sweep`."""
