"""What a training reads: pairs with their hard negatives, and what it is validated on."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.pairs.parts import adjacent
from embed_assets.pairs.splits import TRAIN, VALIDATION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import EXTRACTIVE, Merge, Settings
from embed_assets.training.config import EXTRACTIVE_PER_EPOCH, TrainingConfig, takes_turns
from embed_assets.training.negatives import (
    Search,
    mine_negatives,
    search_here,
    search_on_ray,
)
from embed_assets.training.validation import ndcg_by_dimension

EXTRACTIVE_SHARE = 0.5
"""Share of the tuned weights that is kept of a training on extractive questions, where none is set.

They share their chunks' words, and people ask in others: what the base knows of these must not be
lost. It was chosen on people's questions, with all weights trained (`docs/results.md`)."""
VALIDATION_CHUNKS = 2000
"""Chunks that validation searches while training: those that answer, and others up to so many."""


@dataclass(frozen=True, eq=False)
class TrainingInput:
    """All that a training reads from the warehouse; nothing of it is held out for a test.

    pairs: question_id, anchor, positive, global_chunk_id, relevant_chunk_ids, document_id,
    generator and more, of questions that train. validation: question_id, anchor,
    relevant_chunk_ids. corpus: chunk_id and chunk_text of the chunks of both. neighbours: chunk_id
    and neighbour_id of those that stand before or after one another in any document. sources:
    question_id, chunk_id, document_id and sha256 of all pairs, those that validate included.
    """

    pairs: pl.DataFrame
    validation: pl.DataFrame
    corpus: pl.DataFrame
    neighbours: pl.DataFrame
    sources: pl.DataFrame


def read_training_input(warehouse: Warehouse) -> TrainingInput:
    """What there is to train on. ProjectError as of `read_pairs`."""
    places = warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")
    return training_input(read_pairs(warehouse), places)


def read_pairs(warehouse: Warehouse) -> pl.DataFrame:
    """Pairs that train and validate, with their split and the path and sha256 of their PDF.

    ProjectError where there is nothing to train on, or where the pairs were made before a pair said
    who wrote it.
    """
    pairs = warehouse.read(
        "SELECT p.question_id, p.anchor, p.positive, p.global_chunk_id, p.relevant_chunk_ids, "
        "p.document_id, p.generator, p.split, r.path, r.sha256 FROM training_pairs p "
        "JOIN raw_pdfs r USING (document_id) WHERE p.split IN (?, ?) ORDER BY p.question_id",
        [TRAIN, VALIDATION],
    )
    if not {TRAIN, VALIDATION} <= set(pairs["split"]):
        raise ProjectError("There is nothing to train on yet: materialize training_pairs first.")
    if pairs["generator"].has_nulls():
        raise ProjectError(
            "training_pairs doesn't say who wrote its questions: an older version made it. "
            "Materialize training_pairs again first."
        )
    return pairs


def training_input(pairs: pl.DataFrame, places: pl.DataFrame) -> TrainingInput:
    """What follows from the pairs that train and validate.

    pairs: as of TrainingInput, with positive, split and sha256. places: document_id, chunk_index,
    chunk_id.
    """
    corpus = pairs.select(chunk_id="global_chunk_id", chunk_text="positive").unique(
        "chunk_id", maintain_order=True
    )
    known = corpus["chunk_id"].implode()
    relevant = pl.col("relevant_chunk_ids").list.set_intersection(known).list.sort()
    pairs = pairs.with_columns(relevant_chunk_ids=relevant)
    return TrainingInput(
        pairs.filter(split=TRAIN).drop("split"),
        pairs.filter(split=VALIDATION).select("question_id", "anchor", "relevant_chunk_ids"),
        corpus.sort("chunk_id"),
        neighbours(places, corpus["chunk_id"]),
        pairs.select("question_id", "document_id", "sha256", chunk_id="global_chunk_id"),
    )


def prepare(
    config: TrainingConfig,
    settings: Settings,
    encoder: CachedEncoder,
    given: TrainingInput,
    pairs: pl.DataFrame,
) -> TrainingConfig:
    """Write the frames that the config names.

    Gives the config with the base model's score on validation and the share of the tuned weights.
    encoder: of the base model. pairs: those of the given ones that are trained on.
    """
    config.folder.mkdir(parents=True, exist_ok=True)
    related = with_related(given.pairs, given.neighbours)
    selected = related.join(pairs, on="question_id", how="semi", maintain_order="left")
    count = 0 if config.method == "adapter" else settings.hard_negatives
    search = search_on_ray(settings.workers) if settings.engine == "ray" else search_here
    chosen = with_negatives(selected, related, encoder, count, search)
    questions = given.validation
    corpus = validation_corpus(given.corpus, questions, VALIDATION_CHUNKS)
    # base_eval needs these too, and finds them kept.
    queries = encoder.encode_queries(questions["anchor"].to_list(), "Encoding questions")
    documents = encoder.encode_documents(corpus["chunk_text"].to_list(), "Encoding chunks")
    base = ndcg_by_dimension(queries, documents, questions, corpus, config.dimensions)
    if config.method == "adapter":
        anchors = encoder.encode_queries(chosen["anchor"].to_list(), "Encoding questions")
        positives = encoder.encode_documents(chosen["positive"].to_list(), "Encoding chunks")
        chosen = chosen.with_columns(
            _column("anchor_embedding", anchors), _column("positive_embedding", positives)
        )
        questions = questions.with_columns(_column("embedding", queries))
        corpus = corpus.with_columns(_column("embedding", documents))
    chosen.write_parquet(config.pairs)
    questions.write_parquet(config.validation)
    corpus.write_parquet(config.corpus)
    given.sources.write_parquet(config.sources)
    return config.model_copy(
        update={"base_ndcg_at_10": base[max(base)], "merge": merge(settings, selected)}
    )


def merge(settings: Settings, pairs: pl.DataFrame) -> Merge:
    """As set, else by who wrote most of an epoch's questions. An adapter has no weights to mix.

    pairs: those that are trained on: generator and more.
    """
    if settings.method == "adapter":
        return 1.0
    extractive = pairs.filter(generator=EXTRACTIVE).height
    others = pairs.height - extractive
    of_epoch = min(extractive, EXTRACTIVE_PER_EPOCH) if takes_turns(settings) else extractive
    return settings.merge or (EXTRACTIVE_SHARE if of_epoch > others else 1.0)


def pairs_to_train(pairs: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """As many as the settings say. pairs: question_id, global_chunk_id, generator and more.

    Where they don't, of extractive ones as many as the epochs take in turn.
    """
    if settings.max_pairs is not None:
        return select_pairs(pairs, settings.max_pairs)
    extractive = pl.col("generator").eq_missing(EXTRACTIVE)
    epochs = settings.epochs if takes_turns(settings) else 1
    few = select_pairs(pairs.filter(extractive), epochs * EXTRACTIVE_PER_EPOCH)
    return pl.concat([pairs.filter(~extractive), few]).sort("question_id")


def select_pairs(pairs: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many pairs (all if 0): one of every chunk before a second of any.

    pairs: question_id, global_chunk_id and more. question_ids are hashes: their order is a shuffle
    that is the same every time, and stays so for those that remain when others come or go.
    """
    ordered = pairs.sort("question_id")
    if most:
        turn = pl.int_range(pl.len()).over("global_chunk_id")
        ordered = ordered.sort(turn, "question_id").head(most).sort("question_id")
    return ordered


def neighbours(places: pl.DataFrame, among: pl.Series) -> pl.DataFrame:
    """Chunks and those that stand before or after them in any document: chunk_id, neighbour_id.

    places: document_id, chunk_index, chunk_id. among: chunk_ids; others are left out.
    """
    beside = adjacent(places, among).filter(pl.col("chunk_id") != pl.col("next_id"))
    before = beside.select("chunk_id", neighbour_id="next_id")
    after = beside.select(chunk_id="next_id", neighbour_id="chunk_id")
    return pl.concat([before, after]).unique().sort(pl.all())


def with_related(pairs: pl.DataFrame, neighbours: pl.DataFrame) -> pl.DataFrame:
    """The pairs with related_chunk_ids: every chunk that answers the anchor, and its neighbours.

    pairs: anchor, global_chunk_id, relevant_chunk_ids and more. neighbours: as `neighbours` gives.
    """
    answers = pl.concat(
        [
            pairs.select("anchor", chunk_id="global_chunk_id"),
            pairs.select("anchor", chunk_id="relevant_chunk_ids").explode("chunk_id").drop_nulls(),
        ]
    ).unique()
    beside = answers.join(neighbours, on="chunk_id").select("anchor", chunk_id="neighbour_id")
    related = (
        pl.concat([answers, beside])
        .group_by("anchor")
        .agg(related_chunk_ids=pl.col("chunk_id").unique().sort())
    )
    return pairs.join(related, on="anchor", how="left", maintain_order="left")


def with_negatives(
    chosen: pl.DataFrame,
    pairs: pl.DataFrame,
    encoder: CachedEncoder,
    count: int,
    search: Search = search_here,
) -> pl.DataFrame:
    """The chosen pairs as the trainer reads them, with `count` hard negatives each.

    pairs: every training pair, whose chunks may be negatives. search: as `mine_negatives` has it.
    SettingsError where they are too few.
    """
    chunks = pairs.select(chunk_id="global_chunk_id", text="positive").unique(
        "chunk_id", maintain_order=True
    )
    ids: list[list[str]] = [[] for _ in range(chosen.height)]
    if count:
        try:
            ids = mine_negatives(
                encoder.encode_queries(chosen["anchor"].to_list(), "Encoding questions"),
                encoder.encode_documents(chunks["text"].to_list(), "Encoding chunks"),
                chunks["chunk_id"].to_list(),
                chosen["global_chunk_id"].to_list(),
                list(map(set, chosen["related_chunk_ids"].to_list())),
                count,
                search,
            )
        except ValueError as error:
            raise SettingsError(f"EMBED_ASSETS_HARD_NEGATIVES: {error}") from error
    text_of = dict(chunks.iter_rows())
    return chosen.select(
        "anchor",
        "positive",
        "question_id",
        chunk_id="global_chunk_id",
        related_chunk_ids="related_chunk_ids",
        extractive=pl.col("generator").eq_missing(EXTRACTIVE),
        negative_ids=pl.Series(ids, dtype=pl.List(pl.String)),
        negatives=pl.Series([[text_of[i] for i in row] for row in ids], dtype=pl.List(pl.String)),
    )


def validation_corpus(corpus: pl.DataFrame, questions: pl.DataFrame, most: int) -> pl.DataFrame:
    """At most so many chunks, all that answer a question among them: chunk_id, chunk_text.

    Enough to choose an epoch by. chunk_ids are hashes: the first of them are a random part, and
    the same one for every training. What is reported is measured on all chunks, later.
    """
    answering = questions.select(chunk_id="relevant_chunk_ids").explode("chunk_id").unique()
    ordered = corpus.with_columns(answers=pl.col("chunk_id").is_in(answering["chunk_id"].implode()))
    ordered = ordered.sort(~pl.col("answers"), "chunk_id")
    return ordered.head(max(most, int(ordered["answers"].sum()))).drop("answers")


def _column(name: str, embeddings: np.ndarray) -> pl.Series:
    return pl.Series(name, embeddings).arr.to_list()
