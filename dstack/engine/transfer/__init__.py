"""Code and artifacts, to and from runners."""
