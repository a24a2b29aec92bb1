"""Commands for what runs produced."""
