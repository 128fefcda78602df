"""What depends on all the other questions, anew each time the pairs are made."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embed_assets.questions.filters.names import NEED_EMBEDDINGS
from embed_assets.questions.statuses import DUPLICATE, KEPT, NEAR_DUPLICATE, ROUND_TRIP_FAILED
from embed_assets.words import normalised_words

Embeddings = NDArray[np.floating]

NEARLY_EQUAL = 0.95
"""Cosine. Of the 1,915 questions of two sets that a language model wrote for contracts and manuals,
all-MiniLM-L6-v2 puts 20 pairs at .95 or above: 14 equal to the letter, 4 rewordings, 2 that differ
in a word that matters. Of the 7 between .93 and .95, 2 are rewordings; below, hardly any."""
ROUND_TRIP_K = 20
"""Places among which the round trip must find a chunk of the question."""

TEST, TRAINING, MACHINE = 0, 1, 2
"""Ranks: a person's question for testing, a person's for training, a machine's."""


def filter_together(
    questions: pl.DataFrame,
    enabled: AbstractSet[str],
    embed_questions: Callable[[Sequence[str]], Embeddings],
    chunk_ids: Sequence[str],
    embed_chunks: Callable[[], Embeddings],
    near: float = NEARLY_EQUAL,
    k: int = ROUND_TRIP_K,
) -> pl.DataFrame:
    """The questions with the status that the whole corpus gives them, rows in their order.

    questions: question_id, question, kind, purpose, relevant_chunk_ids, status and may_train (bool:
    false for what tests or validates, which the round trip leaves alone, since it would favour the
    base model). The base model's embeddings, of texts as queries (texts, D) and of chunk_ids
    (chunks, D), are asked for once, and only if a filter needs them.
    """
    status = questions["status"].to_numpy().astype(object)
    ranks = rank_questions(questions)
    may_train = questions["may_train"].to_numpy()
    kept = np.flatnonzero(status == KEPT)
    # Of equals the first is kept: one that tests before one that trains, or a PDF that arrives
    # could take questions from the test; and the same one whatever the order of the rows.
    order = np.lexsort((questions["question_id"].to_numpy()[kept], may_train[kept]))
    kept = kept[order]

    if "duplicates" in enabled:
        repeated = exact_duplicates(questions["question"].gather(kept).to_list(), ranks[kept])
        status[kept[repeated]] = DUPLICATE
        kept = kept[~repeated]
    if enabled & NEED_EMBEDDINGS and len(kept):
        embeddings = embed_questions(questions["question"].gather(kept).to_list())
        if "near_duplicates" in enabled:
            repeated = near_duplicates(centre(embeddings), ranks[kept], near)
            status[kept[repeated]] = NEAR_DUPLICATE
            kept, embeddings = kept[~repeated], embeddings[~repeated]
        checked = may_train[kept] & (ranks[kept] == MACHINE)
        if "round_trip" in enabled and checked.any():
            place = {chunk_id: place for place, chunk_id in enumerate(chunk_ids)}
            relevant = questions["relevant_chunk_ids"].gather(kept[checked]).to_list()
            places = [[place[c] for c in chunks if c in place] for chunks in relevant]
            found = round_trip(embeddings[checked], embed_chunks(), places, k)
            status[kept[checked][~found]] = ROUND_TRIP_FAILED
    return questions.with_columns(pl.Series("status", status, pl.String))


def rank_questions(questions: pl.DataFrame) -> NDArray[np.int64]:
    """TEST, TRAINING or MACHINE for each row (kind, purpose): of two alike, the lower is kept."""
    rank = (
        pl.when(pl.col("kind") != "labelled")
        .then(MACHINE)
        .when(pl.col("purpose") == "train")
        .then(TRAINING)
        .otherwise(TEST)
    )
    return questions.select(rank.cast(pl.Int64).alias("rank"))["rank"].to_numpy()


def exact_duplicates(questions: Sequence[str], ranks: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which questions repeat the words of one that is kept, signs and case aside: (n,) bool.

    The lower rank is kept and, among a machine's, the earlier row; people's questions of one rank
    are all kept, since two documents may be asked the same.
    """
    keys = [" ".join(normalised_words(question)) or question for question in questions]
    repeated = np.zeros(len(keys), dtype=bool)
    first: dict[str, int] = {}
    for row in np.argsort(ranks, kind="stable"):
        earlier = first.setdefault(keys[row], int(row))
        compared = ranks[row] == MACHINE or ranks[earlier] < ranks[row]
        repeated[row] = earlier != row and compared
    return repeated


def near_duplicates(
    embeddings: Embeddings,
    ranks: NDArray[np.integer],
    threshold: float = NEARLY_EQUAL,
    block_size: int = 1024,
) -> NDArray[np.bool_]:
    """Which questions are nearly one that is kept, by cosine: (n,) bool.

    embeddings: (n, D), not necessarily normalised. Greedy, in order of rank and then of row: each
    is compared with those kept before it, so of a chain of likes every second one may stay. As in
    `exact_duplicates`, people's questions of one rank are not compared. Takes memory for n x D and
    block_size², never n²; the answer does not depend on the block size.
    """
    order = np.argsort(ranks, kind="stable")
    vectors, ranks = _normalise(embeddings)[order], np.asarray(ranks)[order]
    kept = np.ones(len(vectors), dtype=bool)
    for start in range(0, len(vectors), block_size):
        rows = slice(start, min(start + block_size, len(vectors)))
        for before in range(0, start, block_size):
            columns = before + np.flatnonzero(kept[before : before + block_size])
            alike = _alike(vectors, ranks, np.arange(rows.start, rows.stop), columns, threshold)
            kept[rows] &= ~alike.any(axis=1)
        within = np.arange(rows.start, rows.stop)
        alike = np.tril(_alike(vectors, ranks, within, within, threshold), k=-1)
        for row in np.flatnonzero(alike.any(axis=1)):
            kept[start + row] &= not (alike[row] & kept[rows]).any()
    dropped = np.empty(len(vectors), dtype=bool)
    dropped[order] = ~kept
    return dropped


def _alike(
    vectors: NDArray[np.float64],
    ranks: NDArray[np.integer],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    threshold: float,
) -> NDArray[np.bool_]:
    """(rows, columns) bool: near enough, and of ranks that are compared."""
    # Rounded, so that equal vectors have equal cosines wherever they stand in a block.
    near = (vectors[rows] @ vectors[columns].T).astype(np.float32) >= np.float32(threshold)
    return near & ((ranks[rows] == MACHINE)[:, None] | (ranks[columns] < ranks[rows][:, None]))


def centre(embeddings: Embeddings) -> NDArray[np.float64]:
    """Unit vectors less their mean: (n, D).

    Models put all texts into a cone of their own width: two questions that have nothing in common
    have a cosine of .1 by one model, .8 by another and .99 by a poor one. What they share says
    nothing, and without it one threshold does for all. (Mu & Viswanath, All-but-the-Top, 2018.)
    """
    unit = _normalise(embeddings)
    return unit - unit.mean(axis=0)


def round_trip(
    question_embeddings: Embeddings,
    chunk_embeddings: Embeddings,
    relevant: Sequence[Sequence[int]],
    k: int = ROUND_TRIP_K,
    block_size: int = 1024,
) -> NDArray[np.bool_]:
    """Whether each question finds one of its chunks among the k nearest: (questions,) bool.

    Embeddings: (questions, D) and (chunks, D). relevant: positions of each question's chunks. Ties
    count in favour. Consistency filtering after Alberti et al. 2019 and Promptagator (Dai et al.
    2023), who ask for the first place. A question without a chunk is a ValueError.
    """
    if not all(map(len, relevant)):
        raise ValueError("a question has no relevant chunk: leave it out of the round trip.")
    queries, chunks = _normalise(question_embeddings), _normalise(chunk_embeddings)
    found = np.zeros(len(queries), dtype=bool)
    for start in range(0, len(queries), block_size):
        block = queries[start : start + block_size]
        own = np.array(
            [
                (chunks[list(places)] @ query).astype(np.float32).max()
                for query, places in zip(block, relevant[start : start + block_size], strict=True)
            ]
        )
        nearer = np.zeros(len(block), dtype=np.int64)
        for first in range(0, len(chunks), block_size):
            cosines = (block @ chunks[first : first + block_size].T).astype(np.float32)
            nearer += (cosines > own[:, None]).sum(axis=1)
        found[start : start + block_size] = nearer < k
    return found


def _normalise(vectors: Embeddings) -> NDArray[np.float64]:
    """Rows of length 1, in float64; a row of zeros stays zero."""
    exact = vectors.astype(np.float64)
    return exact / np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-12)
