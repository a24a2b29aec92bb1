"""A run and its jobs: what they ask for, run and leave."""
