"""Floor 3: drives every job through its life. Crash-only: all state is in the store or on the hosts."""
