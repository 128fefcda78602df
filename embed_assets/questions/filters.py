"""Which questions train: each filter names what it drops, and no row is lost.

A filter only changes the status of a question that was KEPT, so the first reason stays. What can be
said of a question and its chunk is decided when the question is made (`filter_each`); what depends
on all the others, when the pairs are made (`filter_together`), anew each time.

What people wrote is never judged by a machine. One thing can befall it: a question given for
training that repeats one given for testing doesn't train, or the test would flatter the model.

What training all-MiniLM-L6-v2 on the questions that each filter leaves did to NDCG@10, against
training on all of them: the change and its standard error over 616 test questions of other pages
(128 tokens, batches of 32, one epoch, lr 5e-5, seed 0 unless named, each trained once):

    questions  filter                     pairs  384 dimensions  128 dimensions  64 dimensions
    real       none                         360  .864            .840            .789
    real       round_trip                   346  +.002±.003      +.002±.004      +.005±.004
    real       pointing                     345  +.003±.004      +.001±.004      +.003±.004
    injected   none                         516  .865            .839            .782
    injected   unanswerable (told)          477  +.004±.004      +.002±.004      +.009±.005
    injected   round_trip                   428  +.001±.005      +.004±.005      +.007±.006
    injected   duplicates+near_duplicates   467  +.003±.004      +.000±.004      -.002±.005
    injected   pointing                     458  -.001±.004      -.003±.004      +.002±.005
    injected   verbatim                     476  -.003±.003      -.002±.004      -.001±.005
    injected   all of these                 329  -.001±.005      -.001±.005      +.001±.006
    injected   88 dropped by chance         428  +.003±.004      +.001±.004      +.003±.005
    injected   none, seed 1                 516  .865            .836            .785
    injected   unanswerable (told), seed 1  477  +.006±.004      +.006±.004      +.001±.005

    python benchmarks/question_filters.py --data DIR --questions real|injected --arms ARM …

`real` are questions that a language model wrote for contracts (OHR-Bench, law), curated for a
benchmark; untrained, the model has .837, .802 and .747. `unanswerable` drops none of them, verbatim
and duplicates 2 of 360 each: too few to train for. `injected` has dirt mixed in, 30 % of the whole,
a quarter each: rewordings, pointers at the text, questions of a wrong chunk (`unanswerable` is told
which, as if the model that wrote them saw through each), quotations. The loss bears such dirt
well: to have none of it (`real`, none) is worth -.001±.005, +.001±.006 and +.007±.006, so that
this trial can tell the filters apart only roughly.

By default `unanswerable` is on. It alone was ahead by more than its error, and in both seeds:
together +.005±.002, +.004±.003 and +.005±.004; against the chance drop of seed 0, +.002±.004,
+.001±.004 and +.006±.004. A real model sees through fewer. `pointing`, `verbatim` and `round_trip`
are off: within their errors, as is the chance drop. The round trip was ahead in each figure,
though, and may help where questions are worse. Both kinds of duplicates did nothing for NDCG@10
either; they are on for what it can't show: they keep people's test questions out of training.
`judge` was not measured, and is off.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embed_assets.errors import SettingsError
from embed_assets.questions.extractive import count_words
from embed_assets.questions.pointing import points_at_text
from embed_assets.questions.statuses import (
    DUPLICATE,
    KEPT,
    NEAR_DUPLICATE,
    POINTS_AT_TEXT,
    ROUND_TRIP_FAILED,
    UNANSWERABLE,
    VERBATIM,
)
from embed_assets.settings import EXTRACTIVE, NEARLY_EQUAL, ROUND_TRIP_K

Embeddings = NDArray[np.floating]

STATUS_OF: Mapping[str, str] = {
    "unanswerable": UNANSWERABLE,
    "pointing": POINTS_AT_TEXT,
    "verbatim": VERBATIM,
    "duplicates": DUPLICATE,
    "near_duplicates": NEAR_DUPLICATE,
    "round_trip": ROUND_TRIP_FAILED,
}
"""The status that each filter gives to what it drops."""

FILTERS = tuple(STATUS_OF)
"""Every filter, in the order in which they are applied."""

NEED_EMBEDDINGS = frozenset({"near_duplicates", "round_trip"})
CORPUS_FILTERS = NEED_EMBEDDINGS | {"duplicates"}
"""Filters that look at all questions together, when the pairs are made."""

QUOTED_SHARE = 0.8
LEAST_QUOTED_WORDS = 5

# Chinese, Japanese, Thai, Lao, Burmese and Khmer put no spaces between words: there a character
# counts as one.
_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")

TEST, TRAINING, MACHINE = 0, 1, 2
"""Ranks: a person's question for testing, a person's for training, a machine's."""


def enabled_filters(setting: str) -> frozenset[str]:
    """Names of the filters in EMBED_ASSETS_FILTERS: `none`, `all`, or names separated by commas.

    SettingsError names what is no filter.
    """
    names = [name.strip().lower() for name in setting.split(",") if name.strip()]
    if names == ["none"]:
        return frozenset()
    if names == ["all"]:
        return frozenset(FILTERS)
    unknown = [name for name in names if name not in FILTERS]
    if unknown or not names:
        what = f"no filter '{unknown[0]}'" if unknown else "names no filter"
        raise SettingsError(
            f"EMBED_ASSETS_FILTERS: {what}. Set it to none, all, or some of {', '.join(FILTERS)}, "
            "separated by commas."
        )
    return frozenset(names)


def filter_each(
    questions: pl.DataFrame, chunk_texts: Mapping[str, str], enabled: AbstractSet[str]
) -> pl.DataFrame:
    """The questions with the status that each has by itself: unanswerable, pointing, verbatim.

    questions: question, chunk_id, kind, generator, status and, where the generator says so,
    answerable (bool; null counts as answerable). chunk_texts: chunk_id -> text. Rows that are not
    KEPT, and people's questions, stay as they are.
    """
    status = [
        _status_of(row, chunk_texts.get(row["chunk_id"], ""), enabled)
        if row["status"] == KEPT and row["kind"] != "labelled"
        else row["status"]
        for row in questions.iter_rows(named=True)
    ]
    return questions.with_columns(pl.Series("status", status, pl.String))


def _status_of(row: Mapping[str, Any], chunk_text: str, enabled: AbstractSet[str]) -> str:
    if "unanswerable" in enabled and row.get("answerable") is False:
        return UNANSWERABLE
    if "pointing" in enabled and points_at_text(row["question"]):
        return POINTS_AT_TEXT
    judged = "verbatim" in enabled and row["generator"] != EXTRACTIVE
    if judged and quotes(row["question"], chunk_text):
        return VERBATIM
    return KEPT


def quotes(question: str, text: str) -> bool:
    """Whether the text holds 80 % of the question's words in one run, and the question has five.

    Words are compared without case, signs and markup. Four words in five leave room for `What is`
    before a clause that was copied, and not for a question that only names what it asks about.
    """
    words = normalised_words(question)
    if count_words(question) < LEAST_QUOTED_WORDS:
        return False
    length = max(1, int(np.ceil(QUOTED_SHARE * len(words))))
    within = f" {' '.join(normalised_words(text))} "
    starts = range(len(words) - length + 1)
    return any(f" {' '.join(words[start : start + length])} " in within for start in starts)


def normalised_words(text: str) -> list[str]:
    """Words in order without case and signs, letters in their compatible form (NFKC): `ﬁ` is fi."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


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
