"""`dstack runners`."""
