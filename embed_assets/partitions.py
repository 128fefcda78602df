"""The documents partition set, and the id that names a document."""

import hashlib
from pathlib import PurePosixPath

import dagster as dg
from slugify import slugify

DOCUMENTS = "documents"
documents = dg.DynamicPartitionsDefinition(name=DOCUMENTS)
# One Dagster run ingests this many documents: few enough that a killed run costs minutes, many
# enough that the seconds a run costs to start don't matter.
DOCUMENTS_PER_RUN = 32
BATCHES = dg.BackfillPolicy.multi_run(max_partitions_per_run=DOCUMENTS_PER_RUN)


def document_id(path: PurePosixPath) -> str:
    """Id of the document at a path relative to the PDF folder: `[a-z0-9-]` only.

    The slug is for people, the eight hex digits of the path's sha256 keep it unique. It names the
    file, not its content, so that a changed file keeps its partition.
    """
    digest = hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).hexdigest()
    slug = slugify(path.with_suffix("").as_posix(), separator="-") or "document"
    return f"{slug}-{digest[:8]}"
