"""The server: embeddings as OpenAI's API has them, search, and a page."""
