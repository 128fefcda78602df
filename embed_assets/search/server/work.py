"""What requests want of a model, as works of the batcher. Each holds the set that answers it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from embed_assets.search.server.openai_form import ApiError
from embed_assets.search.server.served import Mode, Served, Task


@dataclass(eq=False)
class Embedding:
    """Embed texts. Results: one row for each, float32 (size,)."""

    served: Served
    texts: Sequence[str]
    task: Task
    most_tokens: int
    truncate: bool
    tokens: list[int] = field(default_factory=list)
    """Of each text, also those beyond the limit; known once the work is checked."""

    @property
    def together_with(self) -> Hashable:
        """Texts of one task, for one model."""
        return id(self.served), self.task

    @property
    def tokens_read(self) -> int:
        """Tokens that the model has read: none beyond its limit."""
        return sum(min(count, self.served.token_limit) for count in self.tokens)

    @property
    def texts_cut(self) -> int:
        """Texts that were longer than the model reads."""
        return sum(count > self.served.token_limit for count in self.tokens)

    def check(self) -> None:
        """ApiError where there are too many tokens, or a text is longer than the model reads."""
        self.tokens = [self.served.count_tokens(text) for text in self.texts]
        limit = self.served.token_limit
        if not self.truncate:
            for place, count in enumerate(self.tokens):
                if count > limit:
                    raise ApiError(
                        400,
                        f"Input {place} has {count} tokens; {self.served.name} reads {limit}. "
                        "Split it, or leave out `truncate` to have it cut.",
                        "input",
                        "context_length_exceeded",
                    )
        if self.tokens_read > self.most_tokens:
            raise ApiError(
                400,
                f"The inputs have {self.tokens_read} tokens; a request may have "
                f"{self.most_tokens}. Send them in several requests.",
                "input",
                "max_tokens_per_request",
            )

    def run(self, texts: Sequence[str]) -> Sequence[Any]:
        """Rows of embeddings."""
        return list(self.served.embed(texts, self.task))


@dataclass(frozen=True, eq=False)
class Search:
    """Find the best chunks for one query. Results: one list of chunks."""

    served: Served
    query: str
    k: int
    mode: Mode
    model: str
    only_likely: bool = False

    @property
    def texts(self) -> Sequence[str]:
        """The query."""
        return [self.query]

    @property
    def together_with(self) -> Hashable:
        """Queries that are answered by one model in one way."""
        return id(self.served), self.k, self.mode, self.model, self.only_likely

    def check(self) -> None:
        """Any query will do."""

    def run(self, texts: Sequence[str]) -> Sequence[Any]:
        """The chunks for each query."""
        return self.served.search(texts, self.k, self.mode, self.model, self.only_likely)
