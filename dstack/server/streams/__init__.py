"""Connections that are upgraded to streams: commands in containers, and forwarded ports."""
