"""What a training starts from: the base model, or the champion with a replay of its pairs.

What left the folder must not stay in a model. So a training goes on from the champion only while
all that the champion has learned from is still there to train on; else it starts from the base.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.models.card import model_card
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import Version, champion, newest_model
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.preparation import pairs_to_train, select_pairs
from embed_assets.training.record import PAIR_COLUMNS, read_version_pairs
from embed_assets.wording import counted

REPLAY_SHARE = 1.0
"""Old pairs that are trained on again for each new one."""
LEAST_REPLAY = 128
"""Old pairs that are trained on again at least, four batches of the default size: in a batch of few
new pairs alone each would have few negatives."""
PAIR = ("anchor", "global_chunk_id")
"""What a pair is known by, whichever document it was made from."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where a training starts.

    version: the one that it goes on from; None: the base. known: all pairs that this version has
    learned from, as `learned_pairs` gives them. reason: why it is the base, though the settings ask
    for the champion.
    """

    version: Version | None = None
    known: pl.DataFrame = field(default_factory=pl.DataFrame)
    reason: str = ""

    @property
    def number(self) -> str | None:
        """The version's number."""
        return self.version.number if self.version else None

    @property
    def folder(self) -> Path | None:
        """The version's folder."""
        return self.version.folder if self.version else None


def training_start(warehouse: Warehouse, settings: Settings, pairs: pl.DataFrame) -> Start:
    """Where the settings let a training start. pairs: all that train today."""
    if settings.retrain_from == "base" or settings.method == "adapter":
        return Start()
    version = champion(warehouse, settings)
    if version is None:
        return Start(reason="there is no champion")
    row = newest_model(warehouse, version.number)
    if reason := _not_to_go_on_from(version, row, warehouse, settings):
        return Start(reason=f"version {version.number}, the champion, {reason}")
    pdfs = warehouse.read("SELECT document_id, path, sha256 FROM raw_pdfs ORDER BY path")
    known = read_version_pairs(settings.home / row["pairs"])
    if reason := _not_all_there(known, pairs, pdfs):
        return Start(reason=f"version {version.number}, the champion, {reason}")
    start = Start(version, as_named_today(known, pdfs))
    if pairs_to_train(pairs, settings).join(known, on=PAIR, how="anti").is_empty():
        return Start(reason=f"version {version.number}, the champion, knows all pairs")
    return start


def _not_to_go_on_from(
    version: Version, row: Mapping[str, Any], warehouse: Warehouse, settings: Settings
) -> str | None:
    """Why no training goes on from a version, whatever the pairs are. row: of `models`."""
    tainted = warehouse.read("SELECT DISTINCT unnest(versions) AS version FROM forgotten")
    if version.number in tainted["version"]:
        return "was trained on a document that was forgotten"
    if not version.folder.is_dir():
        return "has lost its folder"
    if row["base_identity"] != model_identity(model_card(settings)):
        return "was fine-tuned from another base model"
    if json.loads(row["settings"] or "{}").get("used", {}).get("method") == "adapter":
        return "is an adapter behind the base model"
    if not row["pairs"] or not (settings.home / row["pairs"]).is_file():
        return "has no record of its pairs"
    return None


def _not_all_there(known: pl.DataFrame, pairs: pl.DataFrame, pdfs: pl.DataFrame) -> str | None:
    """What a version has learned from that no longer trains; None where all of it does.

    known: of the version. pairs: all that train today. pdfs: sha256 and more, all that are there.
    """
    left = known.join(pdfs, on="sha256", how="anti")["sha256"].n_unique()
    if left:
        return f"was trained on {counted(left, 'PDF')} that left or changed"
    gone = known.join(pairs, on=PAIR, how="anti").height
    return f"was trained on {counted(gone, 'pair')} out of use by now" if gone else None


def as_named_today(known: pl.DataFrame, pdfs: pl.DataFrame) -> pl.DataFrame:
    """Pairs, or documents, with the document_id and path that their PDFs have now, by their sha256.

    Those of PDFs that are not there any more stay as they are. pdfs: document_id, path and sha256
    of all that are there.
    """
    here = pdfs.select("document_id", "sha256", stayed="path")
    first = pdfs.unique("sha256", maintain_order=True, keep="first")
    anew = first.select("sha256", new_id="document_id", new_path="path")
    named = known.join(here, on=["document_id", "sha256"], how="left", maintain_order="left")
    named = named.join(anew, on="sha256", how="left", maintain_order="left")
    has_moved = pl.col("stayed").is_null()
    return named.with_columns(
        document_id=pl.when(has_moved)
        .then(pl.coalesce("new_id", "document_id"))
        .otherwise("document_id"),
        path=pl.coalesce("stayed", "new_path", "path"),
    ).select(known.columns)


def pairs_from(start: Start, pairs: pl.DataFrame, settings: Settings) -> pl.DataFrame:
    """The pairs that a training from this start is on: a part of those that one from the base has.

    From a version: those that are new to it, and a sample of the others, spread over all chunks.
    pairs: all that train today.
    """
    wanted = pairs_to_train(pairs, settings)
    if start.version is None:
        return wanted
    new = wanted.join(start.known, on=PAIR, how="anti")
    old = wanted.join(start.known, on=PAIR, how="semi")
    replayed = select_pairs(old, max(LEAST_REPLAY, round(REPLAY_SHARE * new.height)))
    return pl.concat([new, replayed]).sort("question_id")


def learned_pairs(start: Start, pairs: pl.DataFrame) -> pl.DataFrame:
    """All that a version has learned from: the pairs of its training, and those that it inherits.

    Where its best epoch is not the last, pairs that only a later one took are among them.
    pairs: of the training. Gives the columns of `pairs.parquet`, the chunk_id as global_chunk_id.
    """
    columns = ["global_chunk_id" if name == "chunk_id" else name for name in PAIR_COLUMNS]
    own = pairs.with_columns(inherited_from=pl.lit(None, pl.String)).select(columns)
    if start.version is None:
        return own
    # A twin of another document's is kept: who asks for that document finds this version.
    inherited = start.known.join(own, on=[*PAIR, "sha256"], how="anti", maintain_order="left")
    origin = pl.col("inherited_from").fill_null(start.version.number)
    return pl.concat([own, inherited.with_columns(inherited_from=origin).select(columns)])
