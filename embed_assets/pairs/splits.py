"""Which split each question belongs to: by the hash of the content, and kept once given.

A tenth of the documents, by the hash of their bytes, is held out whole. Of the rest, the hash of
each chunk's text puts all its questions together in train, validation or test_seen_documents
(80/10/10). Assignments are stored, so that none moves when documents arrive, leave or change.

Small corpora: where the hashes leave a split empty, the chunks (or the document) nearest to it by
hash are moved in when they are first seen, and stay there like any other.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from embed_assets.errors import ProjectError
from embed_assets.wording import counted

TRAIN, VALIDATION = "train", "validation"
SEEN, UNSEEN, LABELLED = "test_seen_documents", "test_unseen_documents", "test_labelled"
SPLITS = (TRAIN, VALIDATION, SEEN, UNSEEN, LABELLED)
TEST_SPLITS = (LABELLED, UNSEEN, SEEN)
"""Best evidence first: the first that has questions is the headline."""


@dataclass(frozen=True)
class InWords:
    """How a split is told of.

    title: its heading. meaning: a sentence about it. counted: follows a number of its questions.
    questions: what it asks, within a sentence. briefly: the same in a table. short: in a name.
    """

    title: str
    meaning: str
    counted: str
    questions: str = ""
    briefly: str = ""
    short: str = ""


IN_WORDS = {
    LABELLED: InWords(
        title="People's questions",
        meaning="Questions that people wrote. They never train.",
        counted="by people",
        questions="questions that people wrote",
        briefly="people's questions",
        short="people",
    ),
    UNSEEN: InWords(
        title="Held-out documents",
        meaning="Questions on documents of which nothing trains.",
        counted="on held-out documents",
        questions="questions on held-out documents",
        briefly="on held-out documents",
        short="unseen",
    ),
    SEEN: InWords(
        title="Other chunks of training documents",
        meaning="Questions on chunks that never train, of documents of which other chunks do.",
        counted="on other chunks of training documents",
        questions="questions on other chunks of the documents trained on",
        briefly="on held-out chunks",
        short="seen",
    ),
    VALIDATION: InWords(
        title="Validation",
        meaning="Questions that chose the epoch and the settings. They prove nothing.",
        counted="for validation",
        questions="questions that chose the epoch",
        briefly="that chose the epoch",
    ),
    TRAIN: InWords("Training", "Questions that the model has learned from.", "for training"),
}
"""What each split is, best evidence first."""


def split_title(split: str) -> str:
    """The heading of a split; one that isn't known stands under its own name."""
    return IN_WORDS[split].title if split in IN_WORDS else split


HELD_OUT_DOCUMENTS = 0.1
CHUNK_SHARES = ((TRAIN, 0.8), (VALIDATION, 0.1), (SEEN, 0.1))
LEAST_CHUNKS = {VALIDATION: 2, SEEN: 2}
LEAST_TRAINING_QUESTIONS = 16


class TooFewQuestionsError(ProjectError):
    """The corpus is too small to train on and to prove anything; the message says by how much."""


@dataclass(frozen=True)
class Assignments:
    """Split by document_id (only the held-out share has one to speak of) and by chunk_id."""

    documents: Mapping[str, str]
    chunks: Mapping[str, str]


def assign_splits(
    questions: pl.DataFrame,
    occurrences: pl.DataFrame,
    content_hashes: Mapping[str, str],
    stored: Assignments,
) -> tuple[pl.DataFrame, Assignments]:
    """Questions with their split, and the assignments to store.

    questions: question_id, chunk_id, document_id, purpose. occurrences: chunk_id, document_id of
    every place where a chunk's text stands, or its twin. content_hashes: sha256 of the PDF by
    document_id. Returns questions with a column `split`. Two kinds are left out: questions on a
    trained chunk that a held-out document now holds too, and questions of a training document on a
    chunk that a held-out document holds or held.
    """
    trainable = questions.filter(pl.col("purpose") == "train")
    documents = _assign_documents(trainable, content_hashes, stored.documents)
    held_out = {key for key, split in documents.items() if split == UNSEEN}
    in_held_out = set(occurrences.filter(pl.col("document_id").is_in(held_out))["chunk_id"])
    chunks = _assign_chunks(set(trainable["chunk_id"]), in_held_out, stored.chunks)
    usable = {
        chunk: split
        for chunk, split in chunks.items()
        if chunk not in in_held_out or split == UNSEEN
    }
    split_of_chunk = pl.DataFrame(
        {"chunk_id": list(usable), "split": list(usable.values())},
        schema={"chunk_id": pl.String, "split": pl.String},
    )
    made = trainable.join(split_of_chunk, on="chunk_id", how="inner").filter(
        (pl.col("split") != UNSEEN) | pl.col("document_id").is_in(held_out)
    )
    labelled = questions.filter(pl.col("purpose") == "test").with_columns(split=pl.lit(LABELLED))
    return pl.concat([made, labelled]), Assignments(documents, chunks)


def _assign_documents(
    trainable: pl.DataFrame, content_hashes: Mapping[str, str], stored: Mapping[str, str]
) -> dict[str, str]:
    counts = dict(trainable.group_by("document_id").len().iter_rows())
    documents = dict(stored)
    new = [key for key in sorted(counts) if key not in stored]
    for key in new:
        held_out = position(content_hashes[key]) < HELD_OUT_DOCUMENTS
        documents[key] = UNSEEN if held_out else SEEN
    held = [key for key in counts if documents[key] == UNSEEN]
    if not held and len(counts) > 1 and new:
        # The nearest to the held-out share, unless it would take most of the questions with it.
        total = sum(counts.values())
        small = [key for key in new if counts[key] <= total / 2] or new
        documents[min(small, key=lambda key: position(content_hashes[key]))] = UNSEEN
    elif len(held) == len(counts):
        # All held out: release the farthest from the share among the new ones.
        free = [key for key in held if key in new]
        if free:
            documents[max(free, key=lambda key: position(content_hashes[key]))] = SEEN
    return documents


def _assign_chunks(
    chunk_ids: set[str], in_held_out: set[str], stored: Mapping[str, str]
) -> dict[str, str]:
    chunks = dict(stored)
    new = sorted((c for c in chunk_ids if c not in stored and c not in in_held_out), key=position)
    chunks.update({c: UNSEEN for c in chunk_ids if c not in stored and c in in_held_out})
    chunks.update({c: _chunk_split(c) for c in new})
    present = [c for c in chunk_ids if c not in in_held_out]
    for split, least in LEAST_CHUNKS.items():
        missing = least - sum(chunks[c] == split for c in present)
        movable = [c for c in new if chunks[c] == TRAIN]
        # From the end of the training share, which lies next to the others.
        for c in movable[::-1][: max(0, min(missing, len(movable) - 1))]:
            chunks[c] = split
    return chunks


def _chunk_split(chunk_id: str) -> str:
    place, upper = position(chunk_id), 0.0
    for split, share in CHUNK_SHARES:
        upper += share
        if place < upper:
            return split
    return CHUNK_SHARES[-1][0]


def position(identity: str) -> float:
    """Where the hash of an identity falls, in [0, 1)."""
    digest = hashlib.sha256(f"split:{identity}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def check_enough(splits: Iterable[str], documents: int, chunks: int) -> None:
    """TooFewQuestionsError unless there is enough to train on and to choose and test by."""
    counts = Counter(splits)
    needs = {TRAIN: LEAST_TRAINING_QUESTIONS, VALIDATION: 1, SEEN: 1}
    missing = {split: least - counts[split] for split, least in needs.items()}
    lacking = [f"{n} for {split}" for split, n in missing.items() if n > 0]
    if lacking:
        raise TooFewQuestionsError(
            f"Too few questions to train on: {' and '.join(lacking)} missing "
            f"({counted(documents, 'document')} with {counted(chunks, 'chunk')} gave "
            f"{counted(counts.total(), 'question')}). "
            "Add PDFs with more text."
        )
