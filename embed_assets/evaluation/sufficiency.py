"""Whether the splits hold enough to tell, and whether the champion's figures are of today."""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.evaluation.significance import FEWEST_DOCUMENTS
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import Version
from embed_assets.pairs.splits import (
    LABELLED,
    LEAST_TRAINING_QUESTIONS,
    SEEN,
    TEST_SPLITS,
    TRAIN,
    UNSEEN,
    VALIDATION,
    split_title,
)
from embed_assets.resources.warehouse import Warehouse
from embed_assets.wording import counted


def count_splits(warehouse: Warehouse) -> dict[str, tuple[int, int]]:
    """Questions and documents of each split that has any."""
    rows = warehouse.read(
        "SELECT split, count(*), count(DISTINCT document_id) FROM training_pairs GROUP BY split"
    )
    return {split: (questions, documents) for split, questions, documents in rows.iter_rows()}


def thin_splits(counts: dict[str, tuple[int, int]]) -> list[str]:
    """What is empty or too thin for a verdict, a line each. counts: as `count_splits` gives them.

    People's questions are no must: without any, nothing is said of them.
    """
    lines = []
    for split in (TRAIN, VALIDATION, SEEN, UNSEEN, LABELLED):
        questions, documents = counts.get(split, (0, 0))
        if split == LABELLED and not questions:
            continue
        if not questions:
            lines.append(f"{split_title(split)}: no questions")
        elif split == TRAIN and questions < LEAST_TRAINING_QUESTIONS:
            said = counted(questions, "question")
            lines.append(f"{split_title(split)}: {said}, of {LEAST_TRAINING_QUESTIONS} needed")
        elif split not in (TRAIN, VALIDATION) and documents < FEWEST_DOCUMENTS:
            needed = f"{documents} of the {FEWEST_DOCUMENTS} documents that a verdict needs"
            said = counted(questions, "question")
            lines.append(f"{split_title(split)}: {said} on {needed}")
    return lines


@dataclass(frozen=True)
class Behind:
    """How far figures are behind the corpus. measured_at: None where there are none."""

    measured_at: datetime | None
    came_or_changed: int
    left: int

    @property
    def documents(self) -> int:
        """Documents that came, changed or left since."""
        return self.came_or_changed + self.left


def figures_behind(warehouse: Warehouse, champion: Version) -> Behind:
    """How many documents came, changed or left since a version was scored last.

    Those whose chunks were made since, and those that were removed since. Where the chunks are the
    very ones that it was scored on, none did.
    """
    scored = warehouse.read(
        "SELECT corpus_version, measured_at FROM evaluations e WHERE starts_with(identity, ?) "
        # Not on general questions, nor on those of a BEIR folder.
        "AND EXISTS (SELECT 1 FROM evaluation_results r WHERE r.run_id = e.run_id "
        "AND r.model = e.model AND r.split IN (SELECT unnest(?::VARCHAR[]))) ORDER BY measured_at",
        [model_identity(champion.card), list(TEST_SPLITS)],
    )
    if scored.is_empty():
        return Behind(None, 0, 0)
    last = scored["measured_at"][-1]
    corpus = warehouse.read("SELECT DISTINCT chunk_id FROM chunks")
    today = RetrievalTask(pl.DataFrame(), corpus).corpus_version
    if today in scored.filter(measured_at=last)["corpus_version"]:
        return Behind(last, 0, 0)
    made, removed = warehouse.read(
        "SELECT (SELECT count(*) FROM materializations WHERE asset = 'chunks' "
        "AND materialized_at > $1), "
        "(SELECT coalesce(sum(documents), 0)::BIGINT FROM removals WHERE removed_at > $1)",
        [last],
    ).row(0)
    return Behind(last, made, removed)
