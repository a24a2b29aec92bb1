"""Triggers: the loop that notices what is due, and what turns it into runs."""
