"""Questions about chunks: written by a language model, taken from the text, or by people."""
