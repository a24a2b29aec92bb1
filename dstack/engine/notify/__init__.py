"""Turns events into messages, and has them sent."""
