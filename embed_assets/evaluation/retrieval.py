"""The evaluator: how well embeddings find the chunks that answer questions, at every dimension.

Texts are encoded once by the caller. Here their embeddings are sliced and renormalised for each
dimension, searched once, and scored for all splits from that one search. No model and no file is
touched here; the formulas are in `metrics`.

The figures equal those of sentence-transformers' InformationRetrievalEvaluator, which would encode
the corpus again for every dimension and every split.
"""

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embed_assets.evaluation import metrics
from embed_assets.tables import TABLES

Embeddings = NDArray[np.floating]

ALL_QUESTIONS = "all"
"""The split of every question when the caller names none."""

NO_DIMENSION = 0
"""The dimension of what is found without embeddings."""

LONGEST_NAME = 200
"""Characters of a metric's name in MLflow, at most."""

LISTED = 10
"""How many of the chunks found are listed for each question."""

SCORES_SCHEMA, QUERIES_SCHEMA = (
    pl.Schema({n: t for n, t in TABLES[table].schema.items() if n not in ("run_id", "model")})
    for table in ("evaluation_results", "query_results")
)

_SMALLEST_NORM = 1e-12
_RANK_BITS = 32
_RANK_MASK = (1 << _RANK_BITS) - 1


@dataclass(frozen=True)
class Evaluation:
    """What one model's embeddings achieve on a set of questions.

    scores: split, dimension, metric, k, score: the mean over the questions of the split.
    queries: split, dimension, question_id, rank (from 1, of the first relevant chunk; null when
        none is in the top 100), ndcg_at_10, top_ids (the best ten chunk ids, best first).
    """

    scores: pl.DataFrame
    queries: pl.DataFrame


def evaluate(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    question_ids: Sequence[str],
    chunk_ids: Sequence[str],
    relevant: Mapping[str, AbstractSet[str]],
    dimensions: Sequence[int],
    splits: Sequence[str] | None = None,
    own: Mapping[str, str] | None = None,
) -> Evaluation:
    """Score every split at every dimension, from one search of the whole corpus per dimension.

    query_embeddings (questions, D) and corpus_embeddings (chunks, D) are rows in the order of
    question_ids and chunk_ids. relevant maps each question id to the ids of the chunks that answer
    it; one that the corpus lacks still counts as relevant, and can't be found. splits names each
    question's split; without it all questions form the split "all". A split that no question
    names has no rows. own: the chunk that is no result for a question, by question id; the next
    takes its place.

    Raises ValueError when a question has no relevant chunk (such a question has no score, and to
    leave it out would flatter the model), when an id occurs twice, when lengths differ, when the
    corpus is empty, when a dimension is not one of 1 to D, or when an embedding is not finite.
    """
    _check_same_length("question ids", question_ids, "query embeddings", query_embeddings)
    _check_same_length("chunk ids", chunk_ids, "corpus embeddings", corpus_embeddings)
    _check_unique("question ids", question_ids)
    _check_unique("chunk ids", chunk_ids)
    if not question_ids:
        return Evaluation(SCORES_SCHEMA.to_frame(), QUERIES_SCHEMA.to_frame())
    _check_dimensions(dimensions, query_embeddings, corpus_embeddings)

    id_order = sorted(range(len(chunk_ids)), key=chunk_ids.__getitem__)
    evaluations: list[Evaluation] = []
    for dimension in dimensions:
        found, _ = top_k(
            query_embeddings[:, :dimension],
            corpus_embeddings[:, :dimension],
            k=metrics.DEPTH + bool(own),
            tie_order=id_order,
        )
        rankings = [[chunk_ids[int(chunk)] for chunk in row] for row in found]
        rankings = without_own(rankings, question_ids, own)
        evaluations.append(evaluate_rankings(rankings, question_ids, relevant, dimension, splits))
    return Evaluation(
        scores=pl.concat(evaluation.scores for evaluation in evaluations),
        queries=pl.concat(evaluation.queries for evaluation in evaluations),
    )


def evaluate_rankings(
    rankings: Sequence[Sequence[str]],
    question_ids: Sequence[str],
    relevant: Mapping[str, AbstractSet[str]],
    dimension: int,
    splits: Sequence[str] | None = None,
) -> Evaluation:
    """Score every split by what was found for each question, whoever searched.

    rankings: ids of the chunks found for each question of question_ids, the best first, at most
    100. dimension: of the embeddings that were searched; NO_DIMENSION where none were. relevant
    and splits as in `evaluate`.
    """
    splits = [ALL_QUESTIONS] * len(question_ids) if splits is None else splits
    _check_same_length("question ids", question_ids, "rankings", rankings)
    _check_same_length("question ids", question_ids, "splits", splits)
    _check_answerable(question_ids, relevant)
    answers = [relevant[question] for question in question_ids]
    found = [[i in ids for i in row] for row, ids in zip(rankings, answers, strict=True)]
    hits = metrics.padded(found) > 0
    values = metrics.score_questions(hits, np.array([len(chunks) for chunks in answers]))
    queries = pl.DataFrame(
        {
            "split": splits,
            "dimension": [dimension] * len(question_ids),
            "question_id": question_ids,
            "rank": [int(rank) or None for rank in metrics.first_ranks(hits)],
            "ndcg_at_10": values["ndcg", 10],
            "top_ids": [ids[:LISTED] for ids in rankings],
        },
        schema=QUERIES_SCHEMA,
    )
    return Evaluation(scores=_mean_scores(values, splits, dimension), queries=queries)


def without_own(
    rankings: Sequence[Sequence[str]], question_ids: Sequence[str], own: Mapping[str, str] | None
) -> list[list[str]]:
    """Rankings of at most 100 chunks without the one that is no result for its question.

    rankings: one longer than that where `own` names any. Thakur et al. 2021 (BEIR), whose figures
    leave out the document that a query is.
    """
    own = own or {}
    return [
        [chunk for chunk in row if chunk != own.get(question)][: metrics.DEPTH]
        for question, row in zip(question_ids, rankings, strict=True)
    ]


def top_k(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    k: int,
    block_size: int = 2048,
    tie_order: Sequence[int] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k chunks nearest to each question by cosine, the best first.

    query_embeddings (Q, D) and corpus_embeddings (C, D) need not be normalised. Returns indices
    into the corpus (Q, min(k, C)) and their cosines (Q, min(k, C)), float32. Equal cosines stand in
    tie_order, which lists all C corpus indices; by default in corpus order. (The evaluator passes
    the order of the chunk ids, as sentence-transformers breaks ties.)

    Exact: every pair is compared, block_size questions by block_size chunks at a time, so beside
    the questions and the result (float64 and int64) this takes about 30 bytes x block_size², and
    nothing that grows with Q x C. The answer does not depend on block_size.
    """
    corpus_size = len(corpus_embeddings)
    if corpus_size == 0:
        raise ValueError("the corpus is empty: pass at least one chunk to search.")
    order = np.arange(corpus_size) if tie_order is None else np.asarray(tie_order, dtype=np.int64)
    tie_ranks = np.empty(corpus_size, dtype=np.int64)
    tie_ranks[order] = np.arange(corpus_size)

    queries = _normalise(query_embeddings, "query")
    best = np.full((len(queries), min(k, corpus_size)), np.iinfo(np.int64).min)
    for corpus_start in range(0, corpus_size, block_size):
        block = slice(corpus_start, corpus_start + block_size)
        chunks = _normalise(corpus_embeddings[block], "corpus")
        for query_start in range(0, len(queries), block_size):
            rows = slice(query_start, query_start + block_size)
            # In a float32 product the cosines of equal vectors differ in the last bit, according
            # to their place in the block, which broke ties at random. Computed in float64 and then
            # rounded, they come out equal (the odds against are about one in 10^8).
            cosines = (queries[rows] @ chunks.T).astype(np.float32)
            best[rows] = _keep_largest(best[rows], _to_keys(cosines, tie_ranks[block]))

    best = np.sort(best, axis=1)[:, ::-1]
    ranks, cosines = _from_keys(best)
    return order[ranks], cosines


def quality_kept(scores: pl.DataFrame) -> pl.DataFrame:
    """Per split and dimension, what truncation costs in quality and saves in storage.

    scores is Evaluation.scores; any columns it has beside those (model, run_id) are keys like
    split. Returns those keys, then dimension, ndcg_at_10, kept (share of the ndcg@10 at the largest
    dimension; null when that is 0), bytes_per_vector (float32: 4 x dimension) and storage_saved
    (share of the largest dimension's bytes). Shares are 1 for 100 %.
    """
    keys = [name for name in scores.columns if name not in ("dimension", "metric", "k", "score")]
    largest = pl.col("dimension").max().over(keys)
    full_ndcg = pl.col("ndcg_at_10").get(pl.col("dimension").arg_max()).over(keys)
    return (
        scores.filter(pl.col("metric") == "ndcg", pl.col("k") == 10)
        .select(*keys, "dimension", pl.col("score").alias("ndcg_at_10"))
        .with_columns(
            kept=pl.when(full_ndcg > 0).then(pl.col("ndcg_at_10") / full_ndcg),
            bytes_per_vector=4 * pl.col("dimension"),
            storage_saved=1 - pl.col("dimension") / largest,
        )
    )


_NOT_IN_NAMES = re.compile(r"[^\w.-]+")


def metric_name(split: str, name: str) -> str:
    """A figure's name in MLflow, which allows few signs: test_labelled/dim_64_cosine_ndcg_at_10."""
    allowed = _NOT_IN_NAMES.sub("_", name.replace("@", "_at_"))
    return f"{split}/{allowed[-LONGEST_NAME:]}"


def sentence_transformers_name(dimension: int, metric: str, k: int) -> str:
    """Name of a figure as sentence-transformers writes it: dim_384_cosine_ndcg@10."""
    return f"dim_{dimension}_cosine_{metric}@{k}"


def _mean_scores(
    values: Mapping[tuple[str, int], metrics.Values], splits: Sequence[str], dimension: int
) -> pl.DataFrame:
    """Mean of every metric over the questions of each split, splits in order of appearance."""
    split_of = np.array(splits)
    rows = [
        (split, dimension, metric, k, float(of_question[split_of == split].mean()))
        for split in dict.fromkeys(splits)
        for (metric, k), of_question in values.items()
    ]
    return pl.DataFrame(rows, schema=SCORES_SCHEMA, orient="row")


def _normalise(vectors: Embeddings, kind: str) -> NDArray[np.float64]:
    """Rows of length 1, float64; a row of zeros stays zero, as in torch's normalize."""
    vectors = vectors.astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if broken := int((~np.isfinite(norms)).sum()):
        raise ValueError(
            f"{broken} of {len(vectors)} {kind} embeddings hold NaN or infinity: the model is "
            "broken (a training that diverged?) or overflowed. Try EMBED_ASSETS_PRECISION=fp32."
        )
    return vectors / np.maximum(norms, _SMALLEST_NORM)


def _to_keys(cosines: NDArray[np.float32], tie_ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pack cosine and tie rank into one integer, larger for what comes earlier in the ranking.

    So one partition of integers picks exactly the chunks that a sort by (-cosine, tie rank) would,
    ties at the boundary of the top k included, and the integer says which chunk it was.
    """
    bits = (cosines + np.float32(0)).view(np.int32)  # + 0: -0.0 equals 0.0, so has its bits
    keys = _in_order_of_value(bits).astype(np.int64) << _RANK_BITS
    keys |= _RANK_MASK - tie_ranks
    return keys


def _from_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tie ranks and cosines that `_to_keys` packed."""
    bits = _in_order_of_value((keys >> _RANK_BITS).astype(np.int32))
    return _RANK_MASK - (keys & _RANK_MASK), bits.view(np.float32)


def _in_order_of_value(bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """Map the bits of float32s to integers of the same order, and back: it is its own inverse."""
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _keep_largest(kept: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row by row, the largest of both, as many as `kept` has columns, in no order."""
    candidates = np.concatenate([kept, more], axis=1)
    return np.partition(candidates, more.shape[1], axis=1)[:, more.shape[1] :]


def _check_same_length(
    one: str, ones: Sequence[str], other: str, others: Sequence[object] | Embeddings
) -> None:
    if len(ones) != len(others):
        raise ValueError(f"{len(ones)} {one} but {len(others)} {other}: pass one for each.")


def _check_unique(what: str, ids: Sequence[str]) -> None:
    if repeated := len(ids) - len(set(ids)):
        raise ValueError(f"{repeated} of {len(ids)} {what} are repeated: pass each id once.")


def _check_answerable(
    question_ids: Sequence[str], relevant: Mapping[str, AbstractSet[str]]
) -> None:
    if unanswerable := [question for question in question_ids if not relevant.get(question)]:
        raise ValueError(
            f"{len(unanswerable)} of {len(question_ids)} questions have no relevant chunk "
            f"(the first is {unanswerable[0]!r}): leave them out before evaluating."
        )


def _check_dimensions(
    dimensions: Sequence[int], query_embeddings: Embeddings, corpus_embeddings: Embeddings
) -> None:
    size = corpus_embeddings.shape[1]
    if query_embeddings.shape[1] != size:
        raise ValueError(
            f"query embeddings have {query_embeddings.shape[1]} dimensions but corpus embeddings "
            f"have {size}: encode both with one model."
        )
    fitting = {dimension for dimension in dimensions if 1 <= dimension <= size}
    if not fitting or len(fitting) < len(dimensions):
        raise ValueError(
            f"dimensions {list(dimensions)}: give at least one, each once and from 1 to {size}, "
            "the model's own size."
        )
