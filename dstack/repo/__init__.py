"""Floor 2: your code as git objects. Only this package runs git: on your machine and in the server's mirrors."""
