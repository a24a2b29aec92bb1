"""What a run's code is."""
