"""The bill of materials of a version: a CycloneDX ML-BOM.

https://cyclonedx.org/capabilities/mlbom/
"""
# The decorator of the library's classes hides what they take and have.
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from embed_assets.training.bundle.files import PROVENANCE, REPORT, of_model
from embed_assets.training.record import PAIRS
from embed_assets.wording import counted

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.component import Component

README = "README.md"
PYPI_NAMES = {"pytorch": "torch", "sentence_transformers": "sentence-transformers"}
"""What sentence-transformers calls libraries in a model's folder, where it differs."""


def bill_of_materials(
    name: str,
    record: Mapping[str, Any],
    files: Mapping[str, str],
    libraries: Mapping[str, str],
) -> str:
    """The bill as JSON. ValueError where it doesn't fit the schema.

    name: of the registered model. record: as `version_lineage` gives it. files: digests of the
    bundle's files. libraries: versions by name, as the model's folder tells them.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    model = _model(name, record, files)
    base = _base(record)
    documents = [_document(row) for row in record["documents"]]
    software = [_library(library, number) for library, number in libraries.items()]
    bill = Bom(components=[base, *documents, *software])
    bill.metadata.component = model
    bill.metadata.tools.components.add(
        Component(
            name="embed-assets", version=version("embed_assets"), type=ComponentType.APPLICATION
        )
    )
    bill.register_dependency(model, [base, *documents, *software])
    written = json.loads(JsonV1Dot6(bill).output_as_string())
    # The library knows these parts of the schema for validation alone.
    for component in written["components"]:
        if component["type"] == ComponentType.DATA.value:
            component["data"] = [{"type": "dataset", "name": component["name"]}]
    written["metadata"]["component"]["modelCard"] = _model_card(record)
    text = json.dumps(written, indent=2, ensure_ascii=False, sort_keys=True)
    if wrong := wrong_in_bill(text):
        raise ValueError(f"the bill of materials doesn't fit its schema: {wrong}")
    return text


def wrong_in_bill(text: str) -> str | None:
    """What of a bill of materials doesn't fit the schema; None where all does."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    except Exception as error:  # whatever stands there: somebody else wrote it
        return f"it is no JSON that can be checked ({type(error).__name__})"
    return None if wrong is None else str(wrong.data.message)


def hashes_in_bill(text: str) -> dict[str, str]:
    """sha256 of the model's files by path, as a valid bill of materials has them."""
    model = json.loads(text).get("metadata", {}).get("component", {})
    return {
        part["name"]: known["content"]
        for part in model.get("components", [])
        for known in part.get("hashes", [])
        if known["alg"] == "SHA-256"
    }


def _model(name: str, record: Mapping[str, Any], files: Mapping[str, str]) -> "Component":
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    beside = {
        README: ExternalReferenceType.MODEL_CARD,
        REPORT: ExternalReferenceType.QUALITY_METRICS,
        PROVENANCE: ExternalReferenceType.ATTESTATION,
    }
    return Component(
        name=name,
        version=record["version"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        description=f"{record['base']}, fine-tuned on {counted(record['questions'], 'question')} "
        f"about {counted(len(record['documents']), 'document')}",
        components=[
            Component(name=path, type=ComponentType.FILE, bom_ref=path, hashes=_sha256(digest))
            for path, digest in of_model(files).items()
        ],
        external_references=[
            ExternalReference(type=kind, url=XsUri(path))
            for path in [*files, PROVENANCE]
            if (kind := beside.get(path.rpartition("/")[2]))
        ],
        pedigree=Pedigree(ancestors=[_base(record, bom_ref="ancestor")]),
        properties=_properties(
            {
                "trained_from": record["trained_from"] and f"version {record['trained_from']}",
                **{
                    key: record[key]
                    for key in (
                        *("identity", "code", "machine", "trained_at", "seconds", "energy_wh"),
                        *("dagster_run_id", "mlflow_run_id"),
                    )
                },
            }
        ),
    )


def _base(record: Mapping[str, Any], bom_ref: str = "base") -> "Component":
    """The model that was fine-tuned."""
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=record["base"],
        version=record["base_revision"],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=bom_ref,
        properties=_properties({"identity": record["base_identity"]}),
    )


def _document(row: Mapping[str, Any]) -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=row["path"],
        type=ComponentType.DATA,
        bom_ref=f"document {row['document_id']}",
        hashes=_sha256(row["sha256"]),
        properties=_properties({"questions": row["questions"]}),
    )


def _library(name: str, number: str) -> "Component":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    package = PYPI_NAMES.get(name, name)
    return Component(
        name=package,
        version=number,
        type=ComponentType.LIBRARY,
        bom_ref=f"library {package}",
        purl=PackageURL("pypi", name=package, version=number),
    )


def _sha256(digest: str) -> "list[HashType]":
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=digest)]


def _properties(known: Mapping[str, Any]) -> "Iterable[Property]":
    from cyclonedx.model import Property

    return [
        Property(name=f"embed_assets:{name}", value=str(value))
        for name, value in known.items()
        if value is not None
    ]


def _model_card(record: Mapping[str, Any]) -> dict[str, Any]:
    """Data and figures, as the schema's model card has them."""
    figures = [(*name.partition("/"), score) for name, score in record["metrics"].items()]
    documents = [{"ref": f"document {row['document_id']}"} for row in record["documents"]]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "sentence-similarity",
            "datasets": [{"ref": f"model/{PAIRS}"}, *documents],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {"type": figure, "slice": split, "value": f"{score:.6g}"}
                for split, _, figure, score in figures
            ]
        },
    }
