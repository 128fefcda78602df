"""Embedding models: what is known of them, what they are, and what they make of texts."""
