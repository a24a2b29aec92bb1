"""Floor 4: the HTTP API over the engine, and the client that speaks to it."""
