"""The real services that tests run against. Whatever starts one stops it."""
