"""Runners: what defines one, and how one goes."""
