"""Floor 2: the ways to run a command on a machine. asyncssh is imported here and nowhere else."""
