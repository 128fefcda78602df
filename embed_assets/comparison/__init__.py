"""The fine-tuned model against its base: what changed, how sure that is, and the report on it."""
