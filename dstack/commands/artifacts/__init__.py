"""What jobs make: on a host, and on its way from there."""
