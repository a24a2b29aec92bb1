"""Floor 3: where a job runs."""
