"""Data that an MLflow run was made from: its name, its version, and where it is in the home.

MLflow's own sources are places; those of a home move with it. So a dataset's source is a table of
the warehouse, or a file by its path in the home.
"""

import json
from collections.abc import Mapping

import polars as pl


def log_dataset(
    run_id: str,
    frame: pl.DataFrame,
    name: str,
    version: str,
    source: Mapping[str, str],
    context: str,
) -> None:
    """Note a dataset of an MLflow run: what it is called, its version, columns and rows; no text.

    source: what it is by what kind of thing it is, such as `table`. context: what it was for, in
    MLflow's words: training or evaluation.
    """
    from mlflow import MlflowClient
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.polars_dataset import from_polars
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    known = from_polars(frame, source=CodeDatasetSource({}), name=name, digest=version).to_dict()
    dataset = Dataset(
        **{**known, "source_type": next(iter(source)), "source": json.dumps({**source})}
    )
    tags = [InputTag(MLFLOW_DATASET_CONTEXT, context)]
    MlflowClient().log_inputs(run_id, [DatasetInput(dataset, tags)])
