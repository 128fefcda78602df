"""Where a version comes from: an in-toto statement with SLSA's predicate of provenance.

https://slsa.dev/spec/v1.0/provenance
"""
# Protobuf makes the classes of its messages when they are imported.
# pyright: reportAttributeAccessIssue=false

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from embed_assets.training.bundle.files import MODEL
from embed_assets.training.record import PAIRS

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:embed-assets:finetuned_model:v1"
BUILDER = "urn:embed-assets:trainer"


def provenance_statement(record: Mapping[str, Any], files: Mapping[str, str]) -> bytes:
    """The statement as JSON: its subjects are the files. ValueError where it isn't valid.

    record: as `version_lineage` gives it. files: digests by path.
    """
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in files.items()],
        "predicateType": SLSA,
        "predicate": {
            "buildDefinition": _build(record, files),
            "runDetails": _run(record),
        },
    }
    payload = json.dumps(statement, indent=2, ensure_ascii=False).encode()
    read_statement(payload)
    return payload


def read_statement(payload: bytes) -> dict[str, str]:
    """sha256 of the files that a statement is about, by path.

    ValueError where the statement, or its predicate, isn't valid.
    """
    from google.protobuf.json_format import MessageToDict, Parse, ParseDict, ParseError
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    try:
        statement = Statement.copy_from_pb(Parse(payload, statement_pb2.Statement()))
        statement.validate()
        if statement.pb.predicate_type != SLSA:
            raise ValueError(f"its predicate is {statement.pb.predicate_type}, not {SLSA}")
        ParseDict(MessageToDict(statement.pb.predicate), provenance_pb2.Provenance())
    except ParseError as error:
        raise ValueError(str(error)) from error
    return {subject.name: subject.digest["sha256"] for subject in statement.pb.subject}


def _build(record: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """What was asked for, and what it was made from: the documents, the base and the pairs."""
    documents = [
        {
            "name": row["path"],
            "digest": {"sha256": row["sha256"]},
            "mediaType": "application/pdf",
            "annotations": {"document_id": row["document_id"], "questions": row["questions"]},
        }
        for row in record["documents"]
    ]
    known = {"identity": record["base_identity"], "revision": record["base_revision"]}
    base = {"name": record["base"], "annotations": {k: v for k, v in known.items() if v}}
    path = f"{MODEL}/{PAIRS}"
    pairs = [{"name": path, "digest": {"sha256": files[path]}}] if path in files else []
    asked = ("version", "base", "trained_from", "settings")
    return {
        "buildType": BUILD_TYPE,
        "externalParameters": {name: record[name] for name in asked},
        "internalParameters": {name: record[name] for name in ("machine", "seconds", "energy_wh")},
        "resolvedDependencies": [*documents, base, *pairs],
    }


def _run(record: Mapping[str, Any]) -> dict[str, Any]:
    """Who made it, when, and in which runs."""
    finished = datetime.fromisoformat(record["trained_at"])
    times = {"finishedOn": finished.isoformat()}
    if record["seconds"] is not None:
        times["startedOn"] = (finished - timedelta(seconds=record["seconds"])).isoformat()
    return {
        "builder": {"id": BUILDER, "version": {"embed_assets": record["code"] or "not recorded"}},
        "metadata": {"invocationId": record["dagster_run_id"], **times},
        "byproducts": [{"name": "MLflow run", "uri": f"runs:/{record['mlflow_run_id']}"}],
    }
