"""What MLflow shows first: the headline figures, and the view of the runs that has them as columns.

MLflow sorts charts by the part of a name before its last slash: `headline` comes before `progress`
and `result` of a training, and before the splits of the questions.
"""

import json
from collections.abc import Mapping

PREFIX = "headline"
FIGURES = {
    "ndcg_at_10": "NDCG@10 of the model, at its full size",
    "ndcg_at_10_base": "the same of the base model",
    "ndcg_at_10_champion": "the same of the champion before",
    "ndcg_at_10_difference": "the model's NDCG@10 less the base model's",
    "ndcg_at_10_difference_high": "upper end of the 95 % interval of that difference",
    "ndcg_at_10_difference_low": "lower end of it",
    "ndcg_at_10_general_difference": "the same difference on general questions: below 0 it forgot",
    "ndcg_at_10_smallest_dimension": "NDCG@10 of the model's smallest Matryoshka dimension",
    "recall_at_10": "share of the relevant chunks among the first ten",
    "reciprocal_rank_at_10": "MRR@10: mean of 1 / rank of the first relevant chunk",
    "test_documents": "documents that the questions of the headline are about",
    "test_questions": "questions of the headline",
    "training_seconds": "seconds that the training took",
}
"""Headline figures by name, in the order in which MLflow shows them: that of the alphabet."""
COLUMNS = {
    "ndcg_at_10": 160,
    "ndcg_at_10_base": 195,
    "ndcg_at_10_difference": 230,
    "ndcg_at_10_difference_low": 255,
    "ndcg_at_10_smallest_dimension": 290,
    "test_questions": 180,
    "training_seconds": 195,
}
"""Those of the view of the runs, each with its width in pixels: the whole name is to be read."""
VIEW = "headline"
"""Key of the view in MLflow's addresses."""
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Tag of an experiment: where MLflow keeps the view."""
ABOUT = "\n".join(
    [
        "Runs of embed_assets: `base_eval` scores the base model, `finetuned_model` trains a "
        "version, `comparison` judges it. Each links to the Dagster run that made it.",
        "",
        f"`{PREFIX}/…` are the figures to read first, on the questions with the best evidence: "
        "people's, else those on held-out documents.",
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in FIGURES.items()),
        "",
        "`progress/…` is what a training measured at its steps, `result/…` what it returned. All "
        "else is by split of the questions, in sentence-transformers' names.",
    ]
)
"""What an experiment says of itself."""


def headline_metrics(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Headline figures by their names in MLflow, without those that are not known.

    To four places: tables show every digit. KeyError for one that FIGURES doesn't explain.
    """
    if unknown := figures.keys() - FIGURES.keys():
        raise KeyError(f"no headline figure: {', '.join(sorted(unknown))}")
    return {f"{PREFIX}/{name}": round(float(v), 4) for name, v in figures.items() if v is not None}


def runs_view() -> str:
    """The view as MLflow keeps it: the newest run first, headline figures beside the names."""
    columns = {_column("metrics", f"{PREFIX}/{name}"): width for name, width in COLUMNS.items()}
    models = _column("attributes", "Models")
    before = {_column("attributes", "Run Name"): 330, "runDateAndNestInfo": 150}
    widths = {**before, **columns, models: 170}
    state = {
        "selectedColumns": [*columns, models],
        "columnOrder": ["0", *widths],  # 0: the box to choose a run
        "columnWidths": widths,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
    }
    return json.dumps({"name": "Headline figures", "createdAt": 0, "state": json.dumps(state)})


def _column(kind: str, name: str) -> str:
    """What MLflow's table calls a column."""
    return f"{kind}.`{name}`"
