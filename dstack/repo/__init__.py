"""Floor 2: the user's code as git objects. git runs here only: on the user's machine, and in the server's mirrors."""
