"""PDF files become pages of markdown, then chunks."""
