"""Drives sweeps: keeps their trials in the queue until all have ended."""
