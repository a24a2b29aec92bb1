"""Floor 3: the working tree as git objects, on the user's side."""
