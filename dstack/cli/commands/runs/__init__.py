"""Commands that show and change runs and their jobs."""
