"""The web page: what people see of the server in a browser."""
