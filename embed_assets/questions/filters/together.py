"""What depends on all the other questions, anew each time the pairs are made."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embed_assets.questions.filters.names import NEED_EMBEDDINGS
from embed_assets.questions.labelled.evidence import LABELLED
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
    embed_chunks: Callable[[Sequence[str]], Embeddings],
    near: float = NEARLY_EQUAL,
    k: int = ROUND_TRIP_K,
) -> pl.DataFrame:
    """The questions with the status that the others give them, rows in their order.

    A question that is dropped as a repetition leaves its chunks to the one that is kept: they join
    the relevant_chunk_ids of that one (see `may_join`). Otherwise the chunk would count as a miss
    in a test, and as a negative in a training.

    What trains is decided by what trains alone. Of questions that are alike the one of the earlier
    turn is kept; what all questions share is taken from those that train; and the round trip
    searches the chunks that are trained on. So a held-out document changes no training.

    Args:
        questions: question_id, question, kind, purpose, chunk_id, relevant_chunk_ids, status, turn
            (int: of questions that are alike the lower is kept; 0 are people's tests) and
            may_train (bool; the round trip judges no other, since it would favour the base model).
        enabled: names of filters.
        embed_questions: the base model's embeddings of texts as queries, (texts, D).
        embed_chunks: the same of chunks by their ids, (ids, D). Both are called at most once, and
            only if a filter needs them.
        near: cosine from which two questions are nearly the same.
        k: places among which the round trip must find the chunk.

    """
    status = questions["status"].to_numpy().astype(object)
    relevant = questions["relevant_chunk_ids"].to_list()
    ranks = rank_questions(questions)
    turns, may_train = questions["turn"].to_numpy(), questions["may_train"].to_numpy()
    kept = np.flatnonzero(status == KEPT)
    # The same one of the alike is kept whatever the order of the rows.
    ids = questions["question_id"].to_numpy()
    kept = kept[np.lexsort((ids[kept], may_train[kept], ranks[kept], turns[kept]))]

    def drop(repeats: NDArray[np.int64], reason: str, *, into_tests: bool) -> NDArray[np.bool_]:
        """Status and chunks of what repeats another; which of `kept` do."""
        for place in np.flatnonzero(repeats >= 0):
            row, other = kept[place], kept[repeats[place]]
            status[row] = reason
            if may_join(int(turns[row]), int(turns[other]), into_tests=into_tests):
                relevant[other] = list(dict.fromkeys([*relevant[other], *relevant[row]]))
        return repeats >= 0

    if "duplicates" in enabled:
        repeats = exact_duplicates(questions["question"].gather(kept).to_list(), ranks[kept])
        kept = kept[~drop(repeats, DUPLICATE, into_tests=True)]
    if enabled & NEED_EMBEDDINGS and len(kept):
        embeddings = embed_questions(questions["question"].gather(kept).to_list())
        if "near_duplicates" in enabled:
            centred = centre(embeddings, may_train[kept])
            repeated = drop(
                near_duplicates(centred, ranks[kept], near), NEAR_DUPLICATE, into_tests=False
            )
            kept, embeddings = kept[~repeated], embeddings[~repeated]
        checked = may_train[kept] & (ranks[kept] == MACHINE)
        if "round_trip" in enabled and checked.any():
            trained = sorted(set(questions.filter("may_train")["chunk_id"]))
            place_of = {chunk_id: place for place, chunk_id in enumerate(trained)}
            places = [
                [place_of[chunk] for chunk in relevant[row] if chunk in place_of]
                for row in kept[checked]
            ]
            found = round_trip(embeddings[checked], embed_chunks(trained), places, k)
            status[kept[checked][~found]] = ROUND_TRIP_FAILED
    return questions.with_columns(
        pl.Series("status", status, pl.String),
        pl.Series("relevant_chunk_ids", relevant, pl.List(pl.String)),
    )


def may_join(dropped: int, kept: int, *, into_tests: bool) -> bool:
    """Whether the chunks of a question that is dropped are added to those of the one that is kept.

    dropped, kept: the turns of both. A dropped test question gives no chunks to a training
    question: what trains must not depend on tests. into_tests: whether people's tests take chunks.
    They do so from a question of the very same words. That two questions are nearly the same is a
    model's opinion, which gives a person's question no other answer.
    """
    return dropped == kept or (kept == 0 and into_tests)


def rank_questions(questions: pl.DataFrame) -> NDArray[np.int64]:
    """TEST, TRAINING or MACHINE for each row (kind, purpose): of two alike, the lower is kept."""
    rank = (
        pl.when(pl.col("kind") != LABELLED)
        .then(MACHINE)
        .when(pl.col("purpose") == "train")
        .then(TRAINING)
        .otherwise(TEST)
    )
    return questions.select(rank.cast(pl.Int64).alias("rank"))["rank"].to_numpy()


def exact_duplicates(questions: Sequence[str], ranks: NDArray[np.integer]) -> NDArray[np.int64]:
    """The place of the kept question whose words each repeats, signs and case aside: (n,), or -1.

    questions: the first of the alike is kept. A machine's yields to any before it; a person's only
    to a test, since two documents may be asked the same.
    """
    repeats = np.full(len(questions), -1)
    first: dict[str, int] = {}
    for row, question in enumerate(questions):
        key = " ".join(normalised_words(question)) or question
        earlier = first.setdefault(key, row)
        if earlier != row and _compared(ranks[[row]], ranks[[earlier]]).item():
            repeats[row] = earlier
    return repeats


def near_duplicates(
    embeddings: Embeddings,
    ranks: NDArray[np.integer],
    threshold: float = NEARLY_EQUAL,
    block_size: int = 1024,
) -> NDArray[np.int64]:
    """The place of the first kept question that each is nearly equal to, by cosine: (n,), or -1.

    embeddings: (n, D), not necessarily normalised. Greedy: each is compared with those kept before
    it, as in `exact_duplicates`, so of a chain of likes every second one may stay. Takes memory for
    n x D and block_size², never n²; the answer does not depend on the block size.
    """
    vectors, ranks = _normalise(embeddings), np.asarray(ranks)
    repeats = np.full(len(vectors), -1)
    for start in range(0, len(vectors), block_size):
        rows = np.arange(start, min(start + block_size, len(vectors)))
        for before in range(0, start, block_size):
            columns = before + np.flatnonzero(repeats[before : before + block_size] < 0)
            alike = _alike(vectors, ranks, rows, columns, threshold)
            for row in np.flatnonzero(alike.any(axis=1) & (repeats[rows] < 0)):
                repeats[start + row] = columns[alike[row].argmax()]
        alike = np.tril(_alike(vectors, ranks, rows, rows, threshold), k=-1)
        for row in np.flatnonzero(alike.any(axis=1) & (repeats[rows] < 0)):
            kept = np.flatnonzero(alike[row] & (repeats[rows] < 0))
            if len(kept):
                repeats[start + row] = start + kept[0]
    return repeats


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
    return near & _compared(ranks[rows], ranks[columns])


def _compared(ranks: NDArray[np.integer], before: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(ranks, before) bool: whether the one yields to the other where they are alike."""
    return (ranks == MACHINE)[:, None] | ((ranks != TEST)[:, None] & (before == TEST))


def centre(embeddings: Embeddings, training: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Unit vectors less the mean of those that train (of all, where none does): (n, D).

    Models put all texts into a cone of their own width: two questions that have nothing in common
    have a cosine of .1 by one model, .8 by another and .99 by a poor one. What they share says
    nothing, and without it one threshold does for all. (Mu & Viswanath, All-but-the-Top, 2018.)
    """
    unit = _normalise(embeddings)
    return unit - (unit[training] if training.any() else unit).mean(axis=0)


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
