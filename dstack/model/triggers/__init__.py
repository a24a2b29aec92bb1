"""When a trigger starts a run, and when it does not: pure functions of its record and the clock."""
