"""What a request may hold, and how much may wait."""

from dataclasses import dataclass

from embed_assets.settings import Settings

MOST_RESULTS = 1000
"""Chunks that one search may ask for."""
LONGEST_QUERY = 20_000
"""Characters of a query."""


@dataclass(frozen=True)
class Limits:
    """Limits of the server, one setting each."""

    inputs: int = 2048
    tokens: int = 300_000
    body_bytes: int = 8 << 20
    waiting: int = 4096
    together: int = 128

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """As they are set."""
        return cls(
            settings.serve_inputs,
            settings.serve_tokens,
            settings.serve_body_mb << 20,
            settings.serve_queue,
            settings.serve_batch,
        )
