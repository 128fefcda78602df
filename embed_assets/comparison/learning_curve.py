"""How much is enough: what parts of a version's pairs teach, and what would help most.

The training of the version is done again on parts of its pairs, with the same settings, seed and
validation, and each model is scored on the questions of the comparison. A model of a part is of no
other use: its figures are kept, and no later comparison on the same questions trains it again.

Two parts are as large, a half: of all documents, and of fewer. What the second scores less is what
documents are worth beside questions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.comparison.measuring import Measured
from embed_assets.comparison.verdict import differences, interval
from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import BASE, TUNED
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.headline import best_evidence
from embed_assets.evaluation.hybrid import BASE_HYBRID, TUNED_HYBRID, measured_hybrid
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import PART_IDENTITY, RetrievalTask, measured
from embed_assets.evaluation.significance import Verdict
from embed_assets.models.card import model_source, version_card
from embed_assets.models.encoder import LocalEncoder, TransientEncoder, resolved_precision
from embed_assets.pairs.splits import LABELLED, TRAIN, position
from embed_assets.resources.redaction import FORGOTTEN
from embed_assets.resources.warehouse import Transaction, Warehouse, digest
from embed_assets.settings import EXTRACTIVE, Settings
from embed_assets.tables import TABLES
from embed_assets.training.again import prepare_again, train_again
from embed_assets.training.claims import (
    FolderClaimedError,
    claimed,
    delete_training,
    folder_made_from,
)
from embed_assets.training.config import TrainingConfig
from embed_assets.training.kept import count_redacted, kept_result, kept_training
from embed_assets.training.record import read_version_pairs, this_code
from embed_assets.wording import counted

NO_PAIRS, QUARTER, HALF, ALL = (
    "no pairs",
    "a quarter of the pairs",
    "half of the pairs",
    "all pairs",
)
FEWER_DOCUMENTS = "half of the pairs, of fewer documents"
CURVE = "learning curve"
"""What is named where there is none."""
ALONE, HYBRID = "alone", "hybrid"
"""How a model searches: by itself, or with BM25."""
WORTH_IT = 0.01
"""Gain in NDCG@10 from twice as many pairs below which they are not worth having."""
FEWER = 0.7
"""Share of the documents up to which they are fewer."""
MANY = 1.5
"""Times the pairs that were trained on from which on many were left out."""
MOSTLY = 0.5
"""Share of extractive questions from which on a version has mostly learned from such."""

_CURVE = pl.Schema({k: v for k, v in TABLES["learning_curves"].schema.items() if k != "run_id"})


class NoCurveError(ProjectError):
    """A version has no learning curve, however often it is compared."""


def no_curve() -> pl.DataFrame:
    """A learning curve of no points."""
    return _CURVE.to_frame()


def parts_of(pairs: pl.DataFrame, least: int) -> dict[str, pl.DataFrame]:
    """The parts that are trained on, by their names. pairs: question_id, document_id.

    Each is a part of the larger one. question_ids are hashes: their order is a shuffle. Without
    FEWER_DOCUMENTS where half of the pairs take nearly all documents. Parts of fewer pairs than
    `least` are left out.
    """
    asked = pairs.sort("question_id")
    half = asked.height // 2
    parts = {QUARTER: asked.head(half // 2), HALF: asked.head(half)}
    fewer = _of_fewer_documents(asked, half)
    if fewer["document_id"].n_unique() <= FEWER * parts[HALF]["document_id"].n_unique():
        parts[FEWER_DOCUMENTS] = fewer
    return {name: part for name, part in parts.items() if part.height >= least}


def _of_fewer_documents(asked: pl.DataFrame, count: int) -> pl.DataFrame:
    """So many pairs of the first documents, by the hash of their ids, that hold them."""
    documents = asked.group_by("document_id").len().rows()
    taken, pairs = [], 0
    for document, of_document in sorted(documents, key=lambda row: position(row[0])):
        if pairs >= count:
            break
        taken.append(document)
        pairs += of_document
    return asked.filter(pl.col("document_id").is_in(taken)).head(count)


def measure_curve(
    warehouse: Warehouse,
    settings: Settings,
    model: Mapping[str, Any],
    found: Measured,
    run_id: str,
    say: Callable[[str], None],
) -> pl.DataFrame:
    """Rows of learning_curves without their run_id: each part beside all pairs.

    model: row of `models` that was compared; found: its figures. run_id: MLflow run that shows
    those of the parts. say: is told what is trained.
    NoCurveError where there can be none; ProjectError where a training fails; BusyError where
    another process trains on the part. What is interrupted is taken up by the next call.
    """
    training = _read_training(settings, model, found.base)
    pairs, batch = training.pairs, training.kept.batch_size
    parts = parts_of(pairs, batch)
    if training.kept.hard_negatives:
        parts.pop(FEWER_DOCUMENTS, None)  # its negatives are chunks of the others
    if HALF not in parts:
        raise NoCurveError(f"half of {counted(pairs.height, 'pair')} make no batch of {batch}")
    by_search = {ALONE: (BASE, TUNED), HYBRID: (BASE_HYBRID, TUNED_HYBRID)}
    points = {
        search: {NO_PAIRS: found.evaluations[base], ALL: found.evaluations[tuned]}
        for search, (base, tuned) in by_search.items()
        if {base, tuned} <= found.evaluations.keys()
    }
    for number, (name, part) in enumerate(parts.items(), 1):
        say(f"Learning curve, {number} of {len(parts)}: {name}, {part.height:,}")
        figures = _measure_part(
            warehouse, settings, training, name, part, found.task, run_id, hybrid=HYBRID in points
        )
        for search in points:
            points[search][name] = figures[search]
    sizes = {NO_PAIRS: pairs.clear(), **parts, ALL: pairs}
    compared = [(name, ALL) for name in sizes if name != ALL]
    if FEWER_DOCUMENTS in parts:
        compared.append((FEWER_DOCUMENTS, HALF))
    of_all = {
        "trained_pairs": pairs.height,
        "trained_documents": pairs["document_id"].n_unique(),
        "known_pairs": _pairs_there(warehouse),
        "extractive_share": (pairs["generator"] == EXTRACTIVE).mean(),
    }
    rows = [
        differences(found.task, scored[against], scored[name])
        .rename({"base": "score", "tuned": "against_score"})
        .with_columns(
            search=pl.lit(search),
            part=pl.lit(name),
            against=pl.lit(against),
            pairs=pl.lit(sizes[name].height),
            learned_documents=pl.lit(sizes[name]["document_id"].n_unique()),
            **{column: pl.lit(value) for column, value in of_all.items()},
        )
        for search, scored in points.items()
        for name, against in compared
    ]
    return pl.concat(row.select(pl.col(n).cast(t) for n, t in _CURVE.items()) for row in rows)


@dataclass(frozen=True, eq=False)
class _Training:
    """The training of a version, to be done again in parts.

    identity: the version's. base: where the base model is. pairs: question_id, document_id and
    generator of all that it was trained on.
    """

    identity: str
    base: str
    kept: TrainingConfig
    pairs: pl.DataFrame

    @contextmanager
    def on(self, asked: Sequence[str], name: str, settings: Settings) -> Iterator[TrainingConfig]:
        """Done again on these questions alone; its folder is there until the block ends well.

        What was interrupted before is taken up. name: what they are called.
        """
        made_from = digest((self.identity, asked, this_code()))
        folder = folder_made_from(settings.models, made_from)
        with claimed(folder):
            pairs = pl.read_parquet(self.kept.pairs)
            pairs = pairs.filter(pl.col("question_id").is_in(asked))
            label = f"Training on {name}"
            training = prepare_again(self.kept, self.base, None, folder, pairs, label)
            train_again(training, kept_result(self.kept)["threads"], settings.engine)
            yield training
        with suppress(FolderClaimedError):  # who goes on there deletes it
            delete_training(folder)


def _read_training(settings: Settings, model: Mapping[str, Any], base: str) -> _Training:
    """The training of a version. NoCurveError where it can't be done again in parts.

    model: row of `models`. base: name of the base model today.
    """
    version = f"version {model['version']}"
    if model["trained_from"] is not None:
        raise NoCurveError(
            f"{version} goes on from version {model['trained_from']}, and knows its pairs too"
        )
    kept = kept_training(Path(model["path"]))
    if kept is None:
        raise NoCurveError(f"what the training of {version} read was not kept")
    if count_redacted(kept, FORGOTTEN):
        raise NoCurveError(f"{version} has learned from a document that was forgotten")
    known = read_version_pairs(settings.home / model["pairs"])
    written = known.select("question_id", "document_id", "generator")
    trained = pl.read_parquet(kept.pairs, columns=["question_id"])
    return _Training(
        model["identity"],
        model_source(base),
        kept,
        trained.join(written, on="question_id").sort("question_id"),
    )


def _measure_part(
    warehouse: Warehouse,
    settings: Settings,
    training: _Training,
    name: str,
    part: pl.DataFrame,
    task: RetrievalTask,
    run_id: str,
    *,
    hybrid: bool,
) -> dict[str, Evaluation]:
    """Figures of a training on a part, by how its model searches.

    They are stored as those of an MLflow run, under the part's name.
    """
    asked = part["question_id"].to_list()
    with ExitStack() as stack:

        def load() -> LocalEncoder:
            trained = stack.enter_context(training.on(asked, name, settings))
            card = version_card(name, trained.model)
            return LocalEncoder(card, resolved_precision(settings.precision))

        precision = resolved_precision(settings.precision)
        identity = f"{PART_IDENTITY}{digest(asked)} of {training.identity} {precision}"
        encoder = TransientEncoder(identity, load)
        alone = measured(warehouse, task, encoder, run_id=run_id, model=name)
        found = {ALONE: alone}
        if hybrid:
            fused = f"{name} + {BM25}"
            found[HYBRID] = measured_hybrid(
                warehouse, task, encoder, settings.dense_weight, run_id=run_id, model=fused
            )
    return found


def _pairs_there(warehouse: Warehouse) -> int:
    rows = warehouse.read("SELECT count(*) FROM training_pairs WHERE split = ?", [TRAIN])
    return rows.item()


def store_curve(transaction: Transaction, curve: pl.DataFrame, run_id: str) -> None:
    """Write a curve as that of the comparison of an MLflow run."""
    of_run = curve.with_columns(run_id=pl.lit(run_id))
    transaction.replace("learning_curves", of_run, {"run_id": [run_id]})


def stored_curve(warehouse: Warehouse, run_id: str) -> pl.DataFrame:
    """The curve of the comparison of an MLflow run, without the run_id; of no points without."""
    names = ", ".join(_CURVE)
    rows = warehouse.read(f"SELECT {names} FROM learning_curves WHERE run_id = ?", [run_id])
    return rows.cast(_CURVE)


def curve_points(curve: pl.DataFrame) -> pl.DataFrame:
    """NDCG@10 of each part on the headline split: the fewest pairs first, all of them last.

    Columns: part, pairs, documents, alone, hybrid (null where it wasn't scored), and difference,
    low, high, resampled: from the part to all pairs, alone; null of all pairs.
    """
    rows = _on_headline(curve).filter(against=ALL)
    per_part = {
        search: rows.filter(search=search).sort("pairs", "part") for search in (ALONE, HYBRID)
    }
    hybrid = per_part[HYBRID].select("part", hybrid="score")
    points = (
        per_part[ALONE]
        .select(
            *("part", "pairs", pl.col("learned_documents").alias("documents")),
            pl.col("score").alias("alone"),
            *("difference", "low", "high", "resampled"),
        )
        .join(hybrid, on="part", how="left", maintain_order="left")
    )
    last = per_part[ALONE].head(1)
    every = last.select(
        part=pl.lit(ALL),
        pairs="trained_pairs",
        documents="trained_documents",
        alone="against_score",
    ).with_columns(
        hybrid=pl.lit(per_part[HYBRID]["against_score"].first(), pl.Float64),
    )
    return pl.concat([points, every], how="diagonal")


def would_help_most(curve: pl.DataFrame) -> str:
    """What to add for a better model, as far as a curve tells; empty of a curve without half."""
    rows = _on_headline(curve).filter(search=ALONE)
    beside = {(row["part"], row["against"]): row for row in rows.iter_rows(named=True)}
    doubled = beside.get((HALF, ALL))
    if doubled is None:
        return ""
    if doubled["verdict"] == Verdict.TOO_FEW:
        return (
            "What would help most can't be told by questions on "
            f"{counted(doubled['documents'], 'document')}: questions of people on more documents "
            "would tell."
        )
    gained = f"from half of the pairs to all of them NDCG@10 changes by {interval(doubled)}"
    spread = beside.get((FEWER_DOCUMENTS, HALF))
    if spread is not None and _is_worth_it(spread):
        return (
            "Pairs of more documents would help most: as many from all documents in place of "
            f"{spread['learned_documents']:,} change NDCG@10 by {interval(spread)}; {gained}."
        )
    is_extractive = doubled["extractive_share"] > MOSTLY
    if _is_worth_it(doubled):
        trained, known = doubled["trained_pairs"], doubled["known_pairs"]
        # To extractive test questions alone more of their kind would always seem to help.
        if known >= MANY * trained and (doubled["split"] == LABELLED or not is_extractive):
            return (
                f"More of the pairs that are there would help most, {trained:,} of {known:,} were "
                f"trained on (EMBED_ASSETS_EPOCHS, EMBED_ASSETS_MAX_PAIRS): {gained}."
            )
        return (
            "More questions, or more passes over them (EMBED_ASSETS_EPOCHS), would help most: "
            f"{gained}."
        )
    if is_extractive:
        kind, other = "extractive questions", "questions of people, or of a language model"
    else:
        kind, other = "questions of this kind", "a larger base model"
    if doubled["verdict"] == Verdict.WORSE:
        return f"Fewer pairs would do better: {gained}."
    if doubled["high"] < WORTH_IT:
        return f"More {kind} would hardly help: {gained}. What may help, untried: {other}."
    return (
        f"It can't be told whether more {kind} would help: {gained}. More questions of people to "
        "test by would tell."
    )


def _is_worth_it(row: Mapping[str, Any]) -> bool:
    return row["verdict"] == Verdict.BETTER and row["difference"] >= WORTH_IT


def _on_headline(curve: pl.DataFrame) -> pl.DataFrame:
    """Rows of the split with the best evidence."""
    if curve.is_empty():
        return curve
    return curve.filter(split=best_evidence(curve))
