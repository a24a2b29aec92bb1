"""Runners as they are now."""
