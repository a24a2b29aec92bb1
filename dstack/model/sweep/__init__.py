"""Sweeps: many runs of one workflow with different variables."""
