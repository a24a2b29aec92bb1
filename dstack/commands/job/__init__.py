"""One attempt on a host."""
