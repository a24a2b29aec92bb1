"""Floor 1: which job runs where, and why a job waits. Pure."""
