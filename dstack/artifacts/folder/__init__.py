"""Artifacts in a folder of the server."""
