"""What a person asked, and by what they named the evidence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelledQuestion:
    """One row of people's questions. dropped: the status that a reviewer gave it, if any."""

    question: str
    file_name: str | None
    page: int | None
    evidence_text: str | None
    answer: str | None
    purpose: str
    answerable: bool
    source: str
    chunk_texts: tuple[str, ...] = ()
    dropped: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """Texts that name the evidence by its words, rather than by its place alone."""
        return (*self.chunk_texts, *filter(None, [self.evidence_text]))
