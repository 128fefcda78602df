"""What MLflow is told of an evaluation: its data, how it was made, and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from embed_assets.evaluation.headline import headline_figures, task_figures
from embed_assets.evaluation.retrieval import Evaluation
from embed_assets.evaluation.scoring import RetrievalTask, baseline_metrics, mlflow_metrics
from embed_assets.models.card import ModelCard
from embed_assets.models.names import told_name
from embed_assets.resources.datasets import log_dataset
from embed_assets.resources.headline import headline_metrics
from embed_assets.wording import counted


def log_task(
    task: RetrievalTask, card: ModelCard, dimensions: Sequence[int], baselines: Sequence[str]
) -> None:
    """Name the MLflow run after what is evaluated, and add what it is made with."""
    import mlflow

    asked, searched = (
        counted(task.questions.height, "question"),
        counted(task.corpus.height, "chunk"),
    )
    mlflow.set_tag("mlflow.runName", f"base_eval {PurePath(card.name).name}, {asked}, {searched}")
    mlflow.log_params(
        {
            "model": told_name(card.name),
            "query_prompt": card.query_prompt,
            "document_prompt": card.document_prompt,
            "dimensions": ", ".join(map(str, dimensions)),
            "baselines": ", ".join(map(told_name, baselines)),
            "questions": task.questions.height,
            "questions_version": task.questions_version,
            "corpus": task.corpus.height,
            "corpus_version": task.corpus_version,
        }
    )


def log_task_data(task: RetrievalTask, run_id: str) -> None:
    """Note the questions and the corpus as datasets of an MLflow run, by their versions."""
    for name, frame, version, table in (
        ("evaluation_questions", task.questions, task.questions_version, "training_pairs"),
        ("corpus", task.corpus, task.corpus_version, "chunks"),
    ):
        log_dataset(run_id, frame, name, version, {"table": f"main.{table}"}, "evaluation")


def log_evaluation(task: RetrievalTask, base: Evaluation, beside: Mapping[str, Evaluation]) -> None:
    """Add the figures of the base model and of the baselines to the MLflow run."""
    import mlflow

    split, counts = task_figures(task)
    first = headline_metrics(headline_figures(base.scores, split) | counts) if split else {}
    mlflow.log_metrics({**first, **mlflow_metrics(base.scores), **baseline_metrics(beside)})
