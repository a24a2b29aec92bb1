"""Breaks everything that dstack runs on, at random, and checks what it promises. `scripts/chaos` runs it."""
