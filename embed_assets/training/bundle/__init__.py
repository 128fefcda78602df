"""A version as it is handed on: its model, what made it, and proof of both."""
