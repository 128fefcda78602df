"""Who decides about a champion in tests."""

from embed_assets.models.registry import Decision

BY_TEST = Decision("a test", "it needs a champion")
