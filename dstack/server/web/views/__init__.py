"""What each page shows: the records of the store as plain values for templates."""
