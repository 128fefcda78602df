"""Scores: how well any model retrieves on any BEIR folder.

A model is a sentence-transformers name or folder, a version that this project has trained, a hosted
model or BM25. Embeddings are kept in the home's warehouse: a second evaluation encodes nothing.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embed_assets.errors import ProjectError
from embed_assets.evaluation.beir import BeirTask, graded_ndcg, read_beir
from embed_assets.evaluation.bm25 import BM25, evaluate_bm25
from embed_assets.evaluation.retrieval import (
    LISTED,
    NO_DIMENSION,
    Evaluation,
    evaluate,
    sentence_transformers_name,
)
from embed_assets.models.card import matryoshka_dimensions
from embed_assets.models.encoder import Encoder
from embed_assets.models.names import find_encoder
from embed_assets.models.registry import champion
from embed_assets.resources.tracking import CHAMPION
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.wording import counted, in_lines

SHOWN = 5
"""Rows that can't be used of which a person is told one by one."""


def score_on_beir(
    settings: Settings, folder: Path, model: str | None = None, split: str | None = None
) -> dict[str, Any]:
    """What `evaluate --json` prints.

    model: a sentence-transformers name or folder, a version such as `v3`, `champion`, `bm25` or
    `openai:MODEL`; the base model of the settings without. Raises SettingsError where the folder or
    the model is wrong, ProjectError where the work fails.
    """
    started = time.perf_counter()
    task = read_beir(folder, split)
    warehouse = Warehouse.of(settings)
    model, named_by = (model, "--model") if model else (settings.model, "EMBED_ASSETS_MODEL")
    if model == BM25:
        name, evaluation = (
            BM25,
            evaluate_bm25(task.queries, task.corpus, task.relevant, own=task.own),
        )
    else:
        model = _champion(warehouse, settings) if model == CHAMPION else model
        name, encoder = find_encoder(warehouse, settings, model, named_by)
        evaluation = _evaluate(task, encoder, settings.dimensions)
    return {
        "model": name,
        "queries": len(task.queries),
        "corpus": len(task.corpus),
        "seconds": round(time.perf_counter() - started, 2),
        "metrics": _figures(task, evaluation),
        "qrels": str(task.qrels),
        "queries_left_out": task.queries_left_out,
        "unknown_queries": task.unknown_queries,
        "unknown_documents": task.unknown_documents,
        "own_documents_left_out": len(task.own),
        "bad_rows": [row.as_json() for row in task.bad_rows],
    }


def _champion(warehouse: Warehouse, settings: Settings) -> str:
    """The champion by its version, as `v3`."""
    found = champion(warehouse, settings)
    if found is None:
        raise ProjectError(
            f"There is no champion in {settings.home}: no version has proved better yet. "
            "Name a version, such as v1."
        )
    return f"v{found.number}"


def _evaluate(task: BeirTask, encoder: Encoder, dimensions: str | None) -> Evaluation:
    # The queries first: they are few, and a setting of dimensions that is wrong shows at once.
    queries = encoder.encode_queries(list(task.queries.values()), "Encoding queries")
    chosen = matryoshka_dimensions(queries.shape[1], dimensions)
    corpus = encoder.encode_documents(list(task.corpus.values()), "Encoding documents")
    ids = list(task.queries), list(task.corpus)
    try:
        return evaluate(queries, corpus, *ids, task.relevant, chosen, own=task.own)
    except ValueError as error:
        raise ProjectError(str(error)) from error


def _figures(task: BeirTask, evaluation: Evaluation) -> dict[str, float]:
    """Every figure by its name, in the order of the dimensions, NDCG@10 first."""
    rows = evaluation.scores.select("dimension", "metric", "k", "score").rows()
    graded = graded_ndcg(task, evaluation) if task.is_graded else {}
    rows += [(dimension, "graded_ndcg", LISTED, score) for dimension, score in graded.items()]
    first = ("ndcg", "graded_ndcg", "mrr", "map")
    rows.sort(key=lambda row: (-row[0], first.index(row[1]) if row[1] in first else len(first)))
    return {_name(*row[:3]): row[3] for row in rows}


def _name(dimension: int, metric: str, k: int) -> str:
    if dimension == NO_DIMENSION:
        return f"{BM25}_{metric}@{k}"
    return sentence_transformers_name(dimension, metric, k)


def scores_text(summary: Mapping[str, Any]) -> str:
    """The scores for a person: a row for each metric, a column for each dimension."""
    table: dict[str, dict[str, float]] = {}
    for name, score in summary["metrics"].items():
        column, _, metric = name.removeprefix("dim_").replace("_cosine", "").partition("_")
        table.setdefault(metric, {})[column] = score
    columns = list(next(iter(table.values())))
    lines = [
        f"{summary['model']} on {counted(summary['queries'], 'query', 'queries')} and "
        f"{counted(summary['corpus'], 'document')}, "
        f"judged by {summary['qrels']}",
        *_notes(summary),
        "",
        f"{'dimension':<16}" + "".join(f"{column:>9}" for column in columns),
    ]
    lines += [
        f"{metric:<16}" + "".join(f"{scores[column]:>9.4f}" for column in columns)
        for metric, scores in table.items()
    ]
    return in_lines(lines)


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """What the figures leave out."""
    notes = (
        ("queries_left_out", "Queries without a relevant document there, left out"),
        ("unknown_queries", "Queries judged there that queries.jsonl lacks"),
        ("unknown_documents", "Documents judged there that corpus.jsonl lacks: never found"),
        (
            "own_documents_left_out",
            "Queries whose own document, that of the same id, is left out of their results, as in "
            "BEIR's figures",
        ),
    )
    lines = [f"{what}: {summary[key]:,}." for key, what in notes if summary[key]]
    bad = summary["bad_rows"]
    if bad:
        lines.append(f"{counted(len(bad), 'row')} of the files can't be used:")
        lines += [f"  {row['file']}, {row['place']}: {row['reason']}." for row in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN:,} more (--json lists all).")
    return lines
