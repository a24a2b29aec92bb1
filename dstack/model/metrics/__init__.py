"""Metrics: numbers that a job prints to its log, as series."""
