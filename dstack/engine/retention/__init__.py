"""What is removed, when, and what happens when a disk fills up."""
