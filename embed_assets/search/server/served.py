"""What the server asks of the rest: a model and its index, and whoever follows the champion.

The server knows no more of them than stands here.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

Task = Literal["query", "document"]
Mode = Literal["hybrid", "dense", "lexical"]
CHAMPION = "champion"


class Served(Protocol):
    """One consistent set: an index of all chunks and the loaded model that made it.

    `embed`, `count_tokens` and `search` are called by one thread at a time. A set stays usable as
    long as somebody holds it.
    """

    @property
    def name(self) -> str:
        """`v3`, or the base model's name where no version is champion."""
        ...

    @property
    def identity(self) -> str:
        """Digest of everything that decides the vectors."""
        ...

    @property
    def dimensions(self) -> Sequence[int]:
        """The Matryoshka dimensions, largest first: the first is the vectors' size."""
        ...

    @property
    def token_limit(self) -> int:
        """Tokens that the model reads of a text."""
        ...

    @property
    def chunks(self) -> int:
        """How many chunks the index holds."""
        ...

    @property
    def models(self) -> Sequence[str]:
        """What a search may ask for: `champion` and, where its vectors are there, `base`."""
        ...

    @property
    def cutoff(self) -> float | None:
        """Cosine below which nothing relevant is likely to be found; None where nobody knows."""
        ...

    def embed(self, texts: Sequence[str], task: Task) -> "np.ndarray":
        """Embeddings, float32 (texts, size), normalised."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, also those beyond the limit."""
        ...

    def search(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        model: str = CHAMPION,
        only_likely: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """The k best chunks of each query, best first; of those that are likely, if asked.

        Keys: file_name, path, page_start, page_end, heading_path, chunk_text, chunk_id,
        document_id, score, cosine, dense_rank, lexical_rank, likely.
        """
        ...

    def pdf(self, path: str) -> bytes | None:
        """The PDF of a document on record, by its path in the PDF folder. Any thread may ask."""
        ...


class Follower(Protocol):
    """Follows the champion."""

    def current(self) -> Served:
        """The newest set that is ready. Cheap; another one after the champion has changed."""
        ...

    def close(self) -> None:
        """Follow no longer."""
        ...
