"""Floor 2: ways to run a command on a machine. asyncssh is imported only here."""
