"""Floor 2, below the other leaves: git itself, called safely; trees, packs, modes."""
