"""Artifact stores: floor 2, with its own I/O."""
