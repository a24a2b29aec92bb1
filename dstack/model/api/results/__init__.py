"""What runs measured, and how they differ."""
