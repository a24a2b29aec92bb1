"""Sends messages: over HTTP and by mail."""
