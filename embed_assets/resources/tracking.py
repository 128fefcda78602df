"""MLflow: one run per materialization, started and ended here.

dagster-mlflow shares one run among all assets of a Dagster run and leaves it RUNNING; here each
materialization has its own, which ends with it, FAILED where it failed.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "embed-assets"
REGISTERED_MODEL = "embed-assets"
CHAMPION = "champion"
REPLACED = "replaced_champion"
"""Tag of a model version: which version was champion before it."""
TRAINED_IN = "trained_in"
"""Tag of a model version: the MLflow run that trained it."""
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of the experiment: what it is for, which MLflow's UI would guess or ask without it."""
DEFAULT_UI = "http://127.0.0.1:5000"
UI_VARIABLE = "EMBED_ASSETS_MLFLOW_UI"
"""Set by `embed-assets ui` to where it serves MLflow."""


class Tracking(dg.ConfigurableResource):
    """Where runs, models and reports are tracked."""

    uri: str
    artifacts: str

    @contextmanager
    def run(self, context: dg.AssetExecutionContext, name: str) -> Iterator[str]:
        """An MLflow run for this materialization; gives its id. Ended when the block ends."""
        import mlflow

        self.connect()
        tags = {
            "dagster/run_id": context.run.run_id,
            "dagster/asset_key": context.asset_key.to_user_string(),
        }
        with mlflow.start_run(run_name=name, tags=tags) as run:
            context.log.info(f"MLflow run {run.info.run_id}: {self.run_url(run.info.run_id)}")
            mlflow.set_tag("dagster/data_version", run.info.run_id)
            yield run.info.run_id

    def connect(self) -> None:
        """Point mlflow at this server and experiment, which is made if it is missing."""
        import mlflow

        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            artifacts = Path(self.artifacts)
            location = artifacts.as_uri() if self.uri.startswith("sqlite:") else None
            mlflow.create_experiment(EXPERIMENT, artifact_location=location, tags=MODEL_TRAINING)
        mlflow.set_experiment(EXPERIMENT)

    def client(self) -> "MlflowClient":
        """A client of this server."""
        import mlflow

        self.connect()
        return mlflow.MlflowClient()

    def run_url(self, run_id: str) -> str:
        """Page of a run. With SQLite it is served by `embed-assets ui`."""
        import mlflow

        experiment = mlflow.get_experiment_by_name(EXPERIMENT)
        server = (
            self.uri if self.uri.startswith("http") else os.environ.get(UI_VARIABLE, DEFAULT_UI)
        )
        key = experiment.experiment_id if experiment else "0"
        return f"{server}/#/experiments/{key}/runs/{run_id}?workflowType=machine_learning"

    def metadata(self, run_id: str) -> dict[str, dg.MetadataValue]:
        """Metadata that links a Dagster materialization to its MLflow run."""
        return {
            # As markdown: the bare address is so long that the UI cuts off everything beside it.
            "mlflow_run": dg.MetadataValue.md(f"[{run_id[:8]}]({self.run_url(run_id)})"),
            "mlflow_run_id": dg.MetadataValue.text(run_id),
        }


def as_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as MLflow takes them."""
    return {key: str(value) for key, value in values.items()}
