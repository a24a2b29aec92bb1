"""A host as a whole."""
