"""The figures of a comparison: every model on one snapshot of the questions and the corpus."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from embed_assets.comparison.general import GeneralFigures, measure_general
from embed_assets.comparison.hybrid_weights import HYBRID_WEIGHTS, measure_weights, no_weights
from embed_assets.comparison.promotion import champion_name, losses
from embed_assets.comparison.verdict import Comparison, compare
from embed_assets.errors import ProjectError
from embed_assets.evaluation.baselines import (
    BASE,
    TUNED,
    compares_champion,
    compares_hybrid,
    find_baseline,
    measure_baselines,
    settings_of,
    single_baselines,
)
from embed_assets.evaluation.hybrid import BASE_HYBRID, TUNED_HYBRID
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import RetrievalTask, measured, retrieval_task
from embed_assets.models.card import model_card
from embed_assets.models.encoder import Encoder
from embed_assets.models.files import NoModelError
from embed_assets.models.identity import model_identity
from embed_assets.models.names import reason_of
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings


@dataclass(frozen=True, eq=False)
class Measured:
    """The figures of a comparison, and those by which alone a model is promoted or not.

    task: what they were measured on. base: name of the base model. evaluations: of base and tuned
    model, alone and, where hybrid search is compared, with BM25, as the tables call them. failed:
    why baselines could not be scored, by what they are called. losses: as `losses` gives them.
    general: the figures on general questions, if these are wanted. weights: of hybrid_weights, none
    where hybrid search is not compared.
    """

    task: RetrievalTask
    base: str
    evaluations: Mapping[str, Evaluation]
    result: Comparison
    failed: Mapping[str, str]
    losses: pl.DataFrame
    general: GeneralFigures | None
    weights: pl.DataFrame


def measure_models(
    warehouse: Warehouse,
    settings: Settings,
    model: Mapping[str, Any],
    before: str | None,
    run_id: str,
) -> Measured:
    """Base, tuned model, the champion before and the baselines on the same questions and corpus.

    model: row of `models` that is compared. before: version that was champion before it. The
    figures are stored as those of the MLflow run, the tuned model's, alone and with BM25, as those
    of its training.
    ProjectError where base or tuned can't be scored.
    """
    task = retrieval_task(warehouse)
    version, base_name = f"v{model['version']}", _base_of(model, settings)
    card = model_card(settings_of(base_name, settings))
    dimensions = card.dimensions(settings.dimensions)

    def figures(encoder: Encoder, called: str, shown_by: str) -> Evaluation:
        return measured(warehouse, task, encoder, dimensions, run_id=shown_by, model=called)

    base_encoder = find_baseline(warehouse, settings, base_name, f"The base model of {version}")
    tuned_encoder = find_baseline(warehouse, settings, version, "The fine-tuned model")
    base = figures(base_encoder, BASE, run_id)
    tuned = figures(tuned_encoder, TUNED, model["mlflow_run_id"])
    others, champion = single_baselines(settings), ""
    if before is not None and compares_champion(settings):
        champion = champion_name(before)
        others[champion] = f"v{before}"
    hybrid = {
        BASE_HYBRID: (base_encoder, run_id),
        TUNED_HYBRID: (tuned_encoder, model["mlflow_run_id"]),
    }
    beside, failed = measure_baselines(
        warehouse,
        settings,
        task,
        others,
        run_id,
        {champion: dimensions},
        hybrid if compares_hybrid(settings) else {},
    )
    result = compare(task, base, tuned, beside)
    general = measure_general(warehouse, settings, base_encoder, tuned_encoder, run_id)
    lost = losses(result, beside.get(champion), settings.promotion_margin)
    by_name = {BASE: base, TUNED: tuned, **{n: beside[n] for n in hybrid if n in beside}}
    weights = no_weights()
    if TUNED_HYBRID in beside:
        try:
            weights = measure_weights(task, tuned_encoder, settings.dense_weight)
        except (ProjectError, ValueError, RuntimeError, OSError) as error:
            failed = {**failed, HYBRID_WEIGHTS: reason_of(error)}
    return Measured(task, base_name, by_name, result, failed, lost, general, weights)


def _base_of(model: Mapping[str, Any], settings: Settings) -> str:
    """Name of the model that a version was fine-tuned from. ProjectError where it is another now.

    The settings may name it by another path than then; of an older row the name alone is known.
    NoModelError where no model of these names can be looked at.
    """
    recorded = model["base_identity"]
    if not recorded:
        return model["base"]
    names, missing = dict.fromkeys([settings.model, model["base"]]), []
    for name in names:
        try:
            if model_identity(model_card(settings_of(name, settings))) == recorded:
                return name
        except NoModelError as error:
            missing.append(error)
    if len(missing) == len(names):
        raise missing[0]
    raise ProjectError(
        f"{model['base']}, with the prompts and limits of today, is no longer the model that "
        f"version {model['version']} was fine-tuned from: they can't be compared. "
        "Materialize finetuned_model first."
    )
