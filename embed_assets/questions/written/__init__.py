"""Questions that a language model writes, and judges."""
