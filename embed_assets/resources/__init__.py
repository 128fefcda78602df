"""What assets use to reach the outside: warehouse, MLflow, embedding model, worker pool."""
