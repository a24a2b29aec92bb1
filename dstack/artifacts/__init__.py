"""Where artifacts are kept: floor 2, with its own I/O."""
