"""Sweeps as users see them."""
