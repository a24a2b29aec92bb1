"""What goes over the wire between CLI and server, and what `--json` prints: a file a noun."""
