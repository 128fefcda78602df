"""The embedding model is fine-tuned in a child process."""
