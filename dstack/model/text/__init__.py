"""Words and units: read and printed here, and nowhere else."""
