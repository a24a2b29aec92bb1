"""The HTTP API between CLI and server, and the output of `--json`: one file per noun."""
