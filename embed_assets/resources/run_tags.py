"""Tags of Dagster runs that assets look at."""

BUDGET_TAG = "embed_assets/command"
"""Tag of the runs that the plan asked for: those with the same value share the budget for language
models. A run without it is of documents that a person chose."""
