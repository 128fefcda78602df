"""A home whose documents are searched: written without Dagster, by what the assets call."""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.identity import text_id
from embed_assets.resources.ledger import Materialization, write_made
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.assets import embed_chunks
from embed_assets.search.building import Made, make_index, switch_to
from embed_assets.search.wanted import Wanted, wanted_model
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.rows import filled

TEXTS: Mapping[str, Sequence[str]] = {
    "winch": ("The winch float is orange.", "Torque of the winch bolt is 12."),
    "pump": ("The brine pump hums at night.", "Replace the valve of the brine pump."),
    "copy": ("The winch float is orange.",),
}


class SearchedHome:
    """A home with some documents, and the versions that it trained."""

    def __init__(self, home: Path, model: Path) -> None:
        self.settings = Settings(home=home, model=str(model), precision="fp32")
        self.warehouse = Warehouse.of(self.settings)
        self._model = model

    def put(self, document: str, *texts: str) -> None:
        """Chunks of a document, on record."""
        rows = [
            {
                "document_id": document,
                "chunk_index": n,
                "chunk_id": text_id(text),
                "chunk_text": text,
                "heading_path": "Heading",
                "page_start": n + 1,
                "page_end": n + 1,
                "file_name": f"{document}.pdf",
            }
            for n, text in enumerate(texts)
        ]
        pdf = {"document_id": document, "path": f"{document}.pdf", "content": b"%PDF"}
        made = {document: Materialization("1", "1", f"version of {texts}")}
        with self.warehouse.transaction() as transaction:
            for table, values in (("chunks", rows), ("raw_pdfs", [pdf])):
                where = {"document_id": [document]}
                transaction.replace(table, filled(table, values), where)
            write_made(transaction, "chunks", made, "run")

    def train(self, version: str, prompts: Mapping[str, str], layers: Path | None = None) -> None:
        """A version in its folder, on record."""
        folder = shutil.copytree(layers or self._model, self.settings.models / f"v{version}")
        said = json.dumps({"prompts": dict(prompts)})
        (folder / "config_sentence_transformers.json").write_text(said)
        row = {
            "version": version,
            "base": "a base",
            "path": f"models/v{version}",
            "trained_at": datetime.now(UTC),
        }
        self.warehouse.replace("models", filled("models", [row]), {"version": [version]})

    def wanted(self) -> Wanted:
        found = wanted_model(self.settings)
        assert found is not None
        return found

    def embed(self) -> None:
        """What the asset chunk_embeddings makes of all documents."""
        columns = ", ".join(TABLES["chunks"].columns)
        chunks = self.warehouse.read(f"SELECT {columns} FROM chunks ORDER BY document_id")
        wanted = self.wanted()
        encoder = CachedEncoder(self.warehouse, wanted.card, self.settings)
        self.warehouse.replace("chunk_embeddings", embed_chunks(chunks, encoder, wanted.of_chunks))

    def index(self) -> Made:
        """What the asset search_index makes."""
        return make_index(self.settings, self.warehouse, self.wanted())

    def promote(self, version: str | None) -> None:
        """Another champion, for which all is prepared."""
        switch_to(self.settings, self.warehouse, version)
        self.embed()
        self.index()

    def ask(self, questions: int) -> None:
        """Questions of people, each answered by the first chunk of a document."""
        [first, *_] = TEXTS["winch"]
        rows = [
            {
                "question_id": f"q{n}",
                "anchor": f"which float {n}",
                "positive": first,
                "global_chunk_id": text_id(first),
                "relevant_chunk_ids": [text_id(first)],
                "split": "test_labelled",
            }
            for n in range(questions)
        ]
        self.warehouse.replace("training_pairs", filled("training_pairs", rows))


def searched_home(folder: Path, model: Path) -> SearchedHome:
    """The home with TEXTS on record, and nothing prepared."""
    home = SearchedHome(folder / "home", model)
    for document, texts in TEXTS.items():
        home.put(document, *texts)
    return home


def of_documents(results: Sequence[Mapping[str, object]]) -> pl.Series:
    return pl.Series([result["document_id"] for result in results])
