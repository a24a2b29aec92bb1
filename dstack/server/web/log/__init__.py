"""The log of a job as a page shows it: a window of it at a time."""
