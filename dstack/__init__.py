"""dstack runs ML workflows on machines that you can reach over SSH."""

__version__ = "0.1.0"
