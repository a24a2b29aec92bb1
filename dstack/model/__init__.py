"""Floor 0, pure: the nouns of dstack and their rules. Nothing here opens a file, a socket or a process."""
