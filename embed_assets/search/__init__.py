"""Search in the chunks."""
