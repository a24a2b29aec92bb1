"""Tests. Shared parts are imported by their full name: `from tests.images import ...`."""
