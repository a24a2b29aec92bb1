"""What a person sees. rich is imported here only."""
