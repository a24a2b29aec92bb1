"""asyncssh, and what ssh would do."""
