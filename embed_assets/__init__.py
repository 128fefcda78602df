"""Turn a growing folder of PDFs into a better embedding model for retrieval."""

import os
import warnings

# No library reports home unless the person turns it on (Dagster's own switch is in dagster.yaml).
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DISABLE_TELEMETRY", "YES")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Bars are drawn by `terminal.py` alone: MLflow's would fill logs, and cut through others.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# Dagster says at every start which of its parts are young; the pins in pyproject.toml hold them.
warnings.filterwarnings("ignore", message=r".*is currently in (preview|beta)")
