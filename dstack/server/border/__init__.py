"""What every connection and request passes before the server reads it: bounds, TLS, names, and tries with tokens."""
