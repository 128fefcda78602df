"""Baselines: the models that the setting `baselines` puts beside base and tuned.

They are asked the same questions on the same corpus, each at its full size. One that fails (a
server that doesn't answer, a model that can't be loaded) is left out, and why stays on record.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import polars as pl

from embed_assets import lexical
from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.evaluation.bm25 import BM25
from embed_assets.evaluation.hybrid import (
    BASE_HYBRID,
    HYBRID,
    TUNED_HYBRID,
    measured_hybrid,
    score_words,
)
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import RetrievalTask, measured, measured_by
from embed_assets.models.card import embedding_size
from embed_assets.models.encoder import Encoder
from embed_assets.models.identity import model_shape
from embed_assets.models.names import HOSTED, find_encoder, hosted_name, is_version, reason_of
from embed_assets.models.registry import Version, newest_model, trained_version
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.openai_server import OpenAIServer
from embed_assets.resources.tracking import CHAMPION
from embed_assets.resources.warehouse import Transaction, Warehouse, digest
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

SETTING = "EMBED_ASSETS_BASELINES"
NONE = "none"
BASE, TUNED = "base", "tuned"
COMPARED = (BASE, TUNED, BASE_HYBRID, TUNED_HYBRID)
"""What the tables call the two models of a training, alone and with BM25: no baseline may be called
so.
"""


def unscored(failed: Mapping[str, str]) -> Failure | None:
    """Why a comparison is not whole: what could not be scored may answer next time."""
    return Failure(Cause.CALL_FAILED, one_line("; ".join(reasons(failed)))) if failed else None


def reasons(failed: Mapping[str, str]) -> list[str]:
    """Which baselines could not be scored and why, a line each."""
    return [f"{called}: {reason}" for called, reason in failed.items()]


def chosen_baselines(settings: Settings) -> tuple[str, ...]:
    """Names in the setting, each once. SettingsError where one can't be a baseline's."""
    parts = (part.strip() for part in settings.baselines.split(","))
    names = tuple(dict.fromkeys(part for part in parts if part))
    if names == (NONE,):
        return ()
    for name in names:
        if name == NONE:
            raise SettingsError(f"{SETTING}: '{NONE}' stands alone, or not at all.")
        if name in COMPARED:
            raise SettingsError(
                f"{SETTING}: '{name}' is compared anyway. A folder of that name is ./{name}."
            )
        if name.startswith(HOSTED):
            hosted_name(name, SETTING)
    return names


def lasting_baselines(settings: Settings) -> tuple[str, ...]:
    """Those that no training changes: all but the champion."""
    return tuple(name for name in chosen_baselines(settings) if name != CHAMPION)


def baseline_versions(settings: Settings) -> list[str | tuple[str, str]]:
    """What stands for the lasting baselines in a code version: names, and what they name now."""
    found: list[str | tuple[str, str]] = []
    for name in sorted(lasting_baselines(settings)):
        if name in (BM25, HYBRID) or is_version(name):
            found.append(name)
        elif name.startswith(HOSTED):
            found.append((name, OpenAIServer().address))
        else:
            shape = model_shape(settings_of(name, settings))
            found.append((name, digest(shape)))
    return found


def compares_champion(settings: Settings) -> bool:
    """Whether each model is compared with the champion before it."""
    return CHAMPION in chosen_baselines(settings)


def compares_hybrid(settings: Settings) -> bool:
    """Whether base and tuned model are scored in hybrid search too."""
    return HYBRID in chosen_baselines(settings)


def weight_compared(settings: Settings) -> float | None:
    """The weight by which models are scored in hybrid search, if they are."""
    return settings.dense_weight if compares_hybrid(settings) else None


def single_baselines(settings: Settings) -> dict[str, str]:
    """Names of the lasting baselines that search alone, by what they are called."""
    return {name: name for name in lasting_baselines(settings) if name != HYBRID}


def check_baselines(warehouse: Warehouse, settings: Settings) -> None:
    """SettingsError where a baseline is not there, before hours of work. Loads no model."""
    for name in lasting_baselines(settings):
        try:
            if name not in (BM25, HYBRID):
                find_baseline(warehouse, settings, name)
        except ProjectError as error:
            reason = error.reason if error.about == SETTING else str(error)
            raise SettingsError(reason, SETTING) from error


def measure_baselines(
    warehouse: Warehouse,
    settings: Settings,
    task: RetrievalTask,
    models: Mapping[str, str],
    run_id: str,
    dimensions: Mapping[str, Sequence[int]] | None = None,
    hybrid: Mapping[str, tuple[Encoder, str]] | None = None,
) -> tuple[Mapping[str, Evaluation], Mapping[str, str]]:
    """Figures of baselines on a task, and why some could not be scored, by what they are called.

    models: the name of each by what it is called. dimensions: at which versions are measured that
    have them, by what they are called; all else at its full size alone. All is stored as that of an
    MLflow run. hybrid: models to be scored with BM25 too, and the MLflow run of each, by what they
    are called then.
    """
    evaluations: dict[str, Evaluation] = {}
    failed: dict[str, str] = {}
    measures: dict[str, Callable[[], Evaluation]] = {
        called: partial(
            _measure,
            warehouse,
            settings,
            task,
            model,
            called,
            run_id,
            (dimensions or {}).get(called),
        )
        for called, model in models.items()
    }
    for called, (encoder, shown_by) in (hybrid or {}).items():
        measures[called] = partial(
            measured_hybrid,
            warehouse,
            task,
            encoder,
            settings.dense_weight,
            run_id=shown_by,
            model=called,
        )
    for called, measure in measures.items():
        try:
            evaluations[called] = measure()
        except (ProjectError, ValueError, RuntimeError, OSError) as error:
            failed[called] = reason_of(error)
    store_failed(warehouse, failed, run_id)
    return evaluations, failed


def store_failed(to: Warehouse | Transaction, failed: Mapping[str, str], run_id: str) -> None:
    """Write why an MLflow run could not measure something, by what it is called."""
    table = TABLES["failed_baselines"]
    rows = [{"run_id": run_id, "model": called, "error": why} for called, why in failed.items()]
    to.replace(table.name, pl.DataFrame(rows, schema=table.schema), {"run_id": [run_id]})


def failed_baselines(warehouse: Warehouse, run_id: str) -> dict[str, str]:
    """Why baselines, and a learning curve, could not be measured by an MLflow run, by what they are
    called.
    """
    rows = warehouse.read(
        "SELECT model, error FROM failed_baselines WHERE run_id = ? ORDER BY model", [run_id]
    )
    return dict(rows.iter_rows())


def find_baseline(
    warehouse: Warehouse, settings: Settings, model: str, named_by: str = SETTING
) -> Encoder:
    """What embeds texts for a model, by `settings_of` it.

    named_by: the setting, or in words what names it, for the error where it is not there.
    """
    return find_encoder(warehouse, settings_of(model, settings), model, named_by)[1]


def settings_of(model: str, settings: Settings) -> Settings:
    """Settings that name a model, without the prompts that are set for another."""
    if model == settings.model:
        return settings
    changes = {"model": model, "query_prompt": None, "document_prompt": None}
    return settings.model_copy(update=changes)


def _measure(
    warehouse: Warehouse,
    settings: Settings,
    task: RetrievalTask,
    model: str,
    called: str,
    run_id: str,
    wanted: Sequence[int] | None,
) -> Evaluation:
    if model == BM25:
        return measured_by(
            partial(score_words, task),
            lexical.IDENTITY,
            warehouse,
            task,
            run_id=run_id,
            model=called,
        )
    encoder = find_baseline(warehouse, settings, model)
    dimensions = _own(wanted, trained_version(newest_model(warehouse, model))) if wanted else None
    return measured(warehouse, task, encoder, dimensions, run_id=run_id, model=called)


def _own(wanted: Sequence[int], version: Version) -> list[int]:
    """Dimensions of these that a version has, and its own size; largest first."""
    size = embedding_size(version.card.source)
    return sorted({size, *(d for d in wanted if d < size)}, reverse=True)
