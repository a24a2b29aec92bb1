"""Checks of what the project files say, beyond their form."""
