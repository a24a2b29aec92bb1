"""`dstack events`."""
