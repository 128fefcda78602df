"""Base models scored on the held-out questions, and the evaluator that scores any model."""
