"""What goes wrong in a chaos test. `kinds.py` lists all faults."""
