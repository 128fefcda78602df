"""Every table's schema, once: it makes the DDL, the validation and the column docs in the UI."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import polars as pl


@dataclass(frozen=True)
class Column:
    """One column: its polars type, its DuckDB type, and what it means."""

    dtype: pl.DataType | type[pl.DataType]
    sql: str
    description: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the warehouse and its key.

    volatile: columns left out of the version of its rows: timestamps and derived values.
    decided_later: by column, a value, and others that another asset puts in its place: for the
    version of the rows they are that value.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]
    volatile: frozenset[str] = frozenset()
    decided_later: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def ddl(self, *, keyed: bool = True, temporary: bool = False) -> str:
        """Makes the table, or adds the columns that an older one lacks; those are nullable.

        keyed: whether the database is to hold rows to the key. temporary: for one connection.
        """
        columns = ", ".join(
            f'"{name}" {c.sql}{"" if c.nullable else " NOT NULL"}'
            for name, c in self.columns.items()
        )
        key = ", ".join(f'"{name}"' for name in self.key)
        held = f", PRIMARY KEY ({key})" if keyed else ""
        new = "TEMP TABLE" if temporary else "TABLE"
        added = (
            f'ALTER TABLE {self.name} ADD COLUMN IF NOT EXISTS "{name}" {c.sql}'
            for name, c in self.columns.items()
            if c.nullable
        )
        make = f"CREATE {new} IF NOT EXISTS {self.name} ({columns}{held})"
        return "; ".join([make, *added])

    @property
    def schema(self) -> pl.Schema:
        """Polars schema, in the table's column order."""
        return pl.Schema({name: c.dtype for name, c in self.columns.items()})

    def differences(
        self, columns: Mapping[str, "StoredColumn"], *, keyed: bool = True
    ) -> list[str]:
        """Why a stored table can't be used as this one, each in words; none where it can.

        keyed: whether the database is to hold rows to the key.

        Columns that may be null may be missing: an older version made the table. More columns may
        be there if rows need no value in them.
        """
        said = [
            f"no column {name}"
            for name, column in self.columns.items()
            if name not in columns and not column.nullable
        ]
        said += [
            f"{columns[name].sql} where {column.sql} belongs, in {name}"
            for name, column in self.columns.items()
            if name in columns and columns[name].sql != _STORED_AS.get(column.sql, column.sql)
        ]
        said += [
            f"an unknown column {name}, which must have a value"
            for name, column in columns.items()
            if name not in self.columns and column.required
        ]
        key = tuple(name for name, column in columns.items() if column.in_key)
        if keyed and set(key) != set(self.key):
            said.append(f"the key ({', '.join(key)}) where ({', '.join(self.key)}) belongs")
        return said

    def empty(self) -> pl.DataFrame:
        """A frame with these columns and no rows."""
        return pl.DataFrame(schema=self.schema)

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The frame in this table's types and order. TableMismatchError says what doesn't fit."""
        differences = {
            "missing column": set(self.columns) - set(frame.columns),
            "unknown column": set(frame.columns) - set(self.columns),
        }
        said = [f"{what} {', '.join(sorted(n))}" for what, n in differences.items() if n]
        if said:
            raise TableMismatchError(f"{self.name}: {'; '.join(said)}")
        for name, column in self.columns.items():
            found, wanted = frame.schema[name], column.dtype
            if found not in (pl.Null, wanted) and not (found.is_integer() and wanted == pl.Int64):
                raise TableMismatchError(f"{self.name}.{name}: {found} where {wanted} belongs")
            if not column.nullable and frame[name].null_count():
                raise TableMismatchError(f"{self.name}.{name}: null where a value belongs")
        return frame.select(list(self.columns)).cast(self.schema, strict=True)


@dataclass(frozen=True)
class StoredColumn:
    """A column as it stands in the warehouse. required: rows need a value in it."""

    sql: str
    required: bool
    in_key: bool


_STORED_AS = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE"}
"""What DuckDB calls types that have another name here."""


class TableMismatchError(Exception):
    """A frame doesn't fit its table: a column is missing, unknown, mistyped or null."""


_text = partial(Column, pl.String, "VARCHAR")
_texts = partial(Column, pl.List(pl.String), "VARCHAR[]")
_integer = partial(Column, pl.Int64, "BIGINT")
_integers = partial(Column, pl.List(pl.Int64), "BIGINT[]")
_number = partial(Column, pl.Float64, "DOUBLE")
_time = partial(Column, pl.Datetime("us", "UTC"), "TIMESTAMPTZ")

_DOCUMENT_ID = _text("Document: slug of its path and 8 hex digits of the path's sha256")
_CHUNK_ID = _text("md5 of the chunk's text: equal texts are one corpus entry")
_RELEVANT = _texts("Every chunk_id that answers the question")
_SPLIT = _text("train, validation, test_seen_documents, test_unseen_documents or test_labelled")
_MEASURED_SPLIT = _text(f"{_SPLIT.description}; general for the questions kept for forgetting")
_RUN_ID = _text("MLflow run that shows these figures")
_MODEL = _text(
    "base, tuned, or a baseline: bm25, champion v3, openai:MODEL, …; 'base, general' and "
    "'tuned, general' on the questions kept for forgetting"
)
_DIMENSION = _integer("Matryoshka dimension; 0 where nothing is embedded (bm25)")

_TABLES = (
    Table(
        "raw_pdfs",
        ("document_id",),
        {
            "document_id": _DOCUMENT_ID,
            "path": _text("Path relative to the PDF folder, with forward slashes"),
            "file_name": _text("Last part of the path"),
            "content": Column(
                pl.Binary,
                "BLOB",
                "The file's bytes; null in a DuckLake, which keeps them beside the tables",
                nullable=True,
            ),
            "sha256": _text("sha256 of the content, in hex"),
            "size_bytes": _integer("Size of the file in bytes"),
            "modified_at": _time("When the file was last changed"),
            "etag": _text("What a bucket calls this version of the file", nullable=True),
            "loaded_at": _time("When the file was read"),
            "loaded_by": _text("Dagster run that read the file"),
        },
        volatile=frozenset({"content", "modified_at", "etag", "loaded_at", "loaded_by"}),
    ),
    Table(
        "parsed_markdown",
        ("document_id", "page"),
        {
            "document_id": _DOCUMENT_ID,
            "page": _integer("Page, from 1; 0 in the one row of a document that has no text"),
            "markdown": _text("The page as markdown"),
            "parser_status": _text("SUCCESS, EMPTY (no text on any page) or ERROR"),
            "error": _text("Why there is no text, or not all of it, in one line", nullable=True),
            "parser": _text("Parser and its version"),
            "text_share": _number(
                "Share of the page's text that the markdown has; null where there is none, or "
                "where it isn't known",
                nullable=True,
            ),
            "text_source": _text("Where the text is from: pdf or ocr", nullable=True),
        },
    ),
    Table(
        "kept_pages",
        ("sha256", "version", "page"),
        {
            "sha256": _text("sha256 of a document's content that is being parsed"),
            "version": _text("Parser and its version, and the settings that shape its pages"),
            "page": _integer("Page, from 1"),
            "made": _text("What the parser made of it, as JSON, until the document is stored"),
        },
    ),
    Table(
        "chunks",
        ("document_id", "chunk_index"),
        {
            "document_id": _DOCUMENT_ID,
            "chunk_index": _integer("Place of the chunk in its document, from 0"),
            "chunk_id": _CHUNK_ID,
            "chunk_text": _text("Its text, with headings and the names of its table's columns"),
            "heading_path": _text("Headings above the chunk, outermost first, joined by ' > '"),
            "page_start": _integer("Page on which the chunk begins, from 1"),
            "page_end": _integer("Page on which the chunk ends, from 1"),
            "token_count": _integer("Length in tokens of the embedding model"),
            "file_name": _text("File that the chunk stands in"),
        },
    ),
    Table(
        "synthetic_questions",
        ("question_id",),
        {
            "question_id": _text("Question: hash of document, chunk, generator and text"),
            "chunk_id": _text("Chunk that answers it best; empty where none was found"),
            "relevant_chunk_ids": _RELEVANT,
            "document_id": _DOCUMENT_ID,
            "question": _text("The question, or a text that stands for one"),
            "answer": _text("Short answer, where there is one", nullable=True),
            "kind": _text("What it is: question, keywords, claim, definition, labelled, …"),
            "purpose": _text("train: may be trained on. test: a person's question for testing"),
            "generator": _text("Who wrote it, e.g. extractive or labelled:FILE"),
            "prompt_version": _text("Version of the generator's rules or prompt"),
            "status": _text("KEPT, or why it was dropped or failed"),
            "reason": _text("What went wrong, where the status alone doesn't say", nullable=True),
            "score": _number("Share of the evidence found, or the judge's score", nullable=True),
            "input_tokens": _integer(
                "Tokens sent for it; a chunk's are shared among its questions"
            ),
            "output_tokens": _integer("Tokens received for it: its share of the call"),
            "created_at": _time("When it was made"),
        },
        volatile=frozenset({"created_at", "reason"}),
        # By training_pairs, over all documents: CORPUS_WIDE in questions/statuses.py.
        decided_later={"status": ("KEPT", ("DUPLICATE", "NEAR_DUPLICATE", "ROUND_TRIP_FAILED"))},
    ),
    Table(
        "training_pairs",
        ("question_id",),
        {
            "question_id": _text("Question, as in synthetic_questions"),
            "anchor": _text("The question's text"),
            "positive": _text("Text of the chunk that answers it"),
            "global_chunk_id": _CHUNK_ID,
            "relevant_chunk_ids": _RELEVANT,
            "document_id": _DOCUMENT_ID,
            "generator": _text(
                "Who wrote the question, as in synthetic_questions; null in pairs of a home made "
                "before this was kept",
                nullable=True,
            ),
            "split": _SPLIT,
        },
        volatile=frozenset({"generator"}),  # question_id says it
    ),
    Table(
        "split_assignments",
        ("kind", "id"),
        {
            "kind": _text("document or chunk"),
            "id": _text("document_id or chunk_id"),
            "split": _text("Split that it was given when first seen; it never moves"),
        },
    ),
    Table(
        "evaluation_results",
        ("run_id", "model", "split", "dimension", "metric", "k"),
        {
            "run_id": _RUN_ID,
            "model": _MODEL,
            "split": _MEASURED_SPLIT,
            "dimension": _DIMENSION,
            "metric": _text("accuracy, hit_rate, precision, recall, f1, ndcg, mrr or map"),
            "k": _integer("Cut-off of the metric"),
            "score": _number("Mean over the split's questions, 0 to 1"),
        },
    ),
    Table(
        "query_results",
        ("run_id", "model", "split", "dimension", "question_id"),
        {
            "run_id": _RUN_ID,
            "model": _MODEL,
            "split": _MEASURED_SPLIT,
            "dimension": _DIMENSION,
            "question_id": _text("Question, as in training_pairs; general ones as in their file"),
            "rank": _integer("Rank of the first relevant chunk, null beyond 100", nullable=True),
            "ndcg_at_10": _number("NDCG@10 of this question"),
            "top_ids": _texts("Ten best chunk_ids, best first"),
        },
    ),
    Table(
        "evaluations",
        ("run_id", "model"),
        {
            "run_id": _RUN_ID,
            "model": _MODEL,
            "identity": _text("Digest of everything that decides the model's embeddings"),
            "questions_version": _text("Version of the questions, their answers and their splits"),
            "corpus_version": _text("Version of the chunks that were searched"),
            "dimensions": _integers("Dimensions measured, the model's own size included"),
            "evaluation_version": _text("Version of the code that measured"),
            "measured_at": _time("When it was measured"),
        },
    ),
    Table(
        "model_comparisons",
        ("run_id", "model", "split", "dimension"),
        {
            "run_id": _text("MLflow run of the comparison"),
            "model": _text("What the fine-tuned model is compared with: base, or a baseline"),
            "split": _SPLIT,
            "metric": _text("What is compared: ndcg"),
            "k": _integer("Cut-off of the metric"),
            "dimension": _DIMENSION,
            "score": _number("Mean of that model over the split's questions, 0 to 1"),
            "tuned": _number("Mean of the fine-tuned model: beside a baseline, at its full size"),
            "difference": _number("tuned minus score"),
            "low": _number("Lower end of the difference's 95 % interval"),
            "high": _number("Upper end of it"),
            "p_value": _number("Two-sided, of a permutation test"),
            "verdict": _text(
                "Of the fine-tuned model: better, worse, no clear difference or too few to tell"
            ),
            "questions": _integer("Questions of the split"),
            "documents": _integer("Documents that they are about"),
            "resampled": _text("What the interval is over: documents or questions"),
        },
    ),
    Table(
        "learning_curves",
        ("run_id", "search", "split", "part", "against"),
        {
            "run_id": _text("MLflow run of the comparison"),
            "search": _text("How the models search: alone, or hybrid: with BM25"),
            "split": _SPLIT,
            "part": _text("Part of the version's pairs that a model was trained on"),
            "against": _text("What that is put beside: all pairs, or another part"),
            "pairs": _integer("Pairs of the part"),
            "learned_documents": _integer("Documents that they are of"),
            "dimension": _DIMENSION,
            "score": _number("Mean NDCG@10 of the part's model over the split's questions, 0 to 1"),
            "against_score": _number("The same of what it is put beside"),
            "difference": _number("against_score minus score"),
            "low": _number("Lower end of the difference's 95 % interval"),
            "high": _number("Upper end of it"),
            "p_value": _number("Two-sided, of a permutation test"),
            "verdict": _text(
                "Of what the part is put beside: better, worse, no clear difference or too few to "
                "tell"
            ),
            "questions": _integer("Questions of the split"),
            "documents": _integer("Documents that they are about"),
            "resampled": _text("What the interval is over: documents or questions"),
            "trained_pairs": _integer("Pairs that the version was trained on"),
            "trained_documents": _integer("Documents that they are of"),
            "known_pairs": _integer("Pairs that could have been trained on"),
            "extractive_share": _number("Share of the version's pairs that are extractive, 0 to 1"),
        },
    ),
    Table(
        "hybrid_comparisons",
        ("run_id", "model", "split", "dimension"),
        {
            "run_id": _text("MLflow run of the comparison"),
            "model": _text("What hybrid search with the fine-tuned model is compared with"),
            "split": _SPLIT,
            "metric": _text("What is compared: ndcg"),
            "k": _integer("Cut-off of the metric"),
            "dimension": _DIMENSION,
            "score": _number("Mean of that over the split's questions, 0 to 1"),
            "tuned": _number("Mean of hybrid search with the fine-tuned model, at its full size"),
            "difference": _number("tuned minus score"),
            "low": _number("Lower end of the difference's 95 % interval"),
            "high": _number("Upper end of it"),
            "p_value": _number("Two-sided, of a permutation test"),
            "verdict": _text(
                "Of hybrid search with the fine-tuned model: better, worse, no clear difference or "
                "too few to tell"
            ),
            "questions": _integer("Questions of the split"),
            "documents": _integer("Documents that they are about"),
            "resampled": _text("What the interval is over: documents or questions"),
        },
    ),
    Table(
        "hybrid_weights",
        ("run_id", "weight"),
        {
            "run_id": _text("MLflow run of the comparison"),
            "split": _SPLIT,
            "dimension": _DIMENSION,
            "weight": _text(
                "Weight of the fine-tuned model's search in hybrid search, 0 to 1; or chosen: of "
                "each document's questions by what is best on the others'"
            ),
            "set_weight": _number("The weight that is set, which it is put beside"),
            "score": _number("Mean NDCG@10 over people's questions, 0 to 1"),
            "set_score": _number("The same with the weight that is set"),
            "difference": _number("score minus set_score"),
            "low": _number("Lower end of the difference's 95 % interval"),
            "high": _number("Upper end of it"),
            "p_value": _number("Two-sided, of a permutation test"),
            "verdict": _text(
                "Of the weight: better, worse, no clear difference or too few to tell"
            ),
            "questions": _integer("Questions of the split"),
            "documents": _integer("Documents that they are about"),
            "resampled": _text("What the interval is over: documents or questions"),
        },
    ),
    Table(
        "failed_baselines",
        ("run_id", "model"),
        {
            "run_id": _RUN_ID,
            "model": _text("Baseline, or learning curve, that could not be measured"),
            "error": _text("Why, in one line"),
        },
    ),
    Table(
        "embeddings",
        ("model", "text_id"),
        {
            "model": _text(
                "Identity of the model for queries or documents, and its precision; of a hosted "
                "model's server, name and prompt"
            ),
            "text_id": _text("md5 of the text; for a chunk, its chunk_id"),
            "embedding": Column(pl.List(pl.Float32), "FLOAT[]", "Embedding at full size"),
        },
    ),
    Table(
        "chunk_embeddings",
        ("document_id", "chunk_index"),
        {
            "document_id": _DOCUMENT_ID,
            "chunk_index": _integer("Place of the chunk in its document, from 0"),
            "chunk_id": _CHUNK_ID,
            "model": _text("Identity of the model that search is prepared for, for documents"),
            "embedding": Column(pl.List(pl.Float32), "FLOAT[]", "Embedding at full size"),
        },
        volatile=frozenset({"embedding"}),
    ),
    Table(
        "search_indexes",
        ("name",),
        {
            "name": _text("Folder of the index in the home's folder `search`"),
            "version": _text("Version whose embeddings it holds; null: the base", nullable=True),
            "identity": _text("Digest of everything that decides the model's embeddings"),
            "documents": _integer("Documents in it"),
            "chunks": _integer("Distinct chunks in it"),
            "cutoff": _number(
                "Cosine below which nothing relevant is likely; null where no questions tell",
                nullable=True,
            ),
            "made_at": _time("When it was made"),
        },
    ),
    Table(
        "materializations",
        ("asset", "document_id"),
        {
            "asset": _text("Asset that was materialized"),
            "document_id": _text("Of which document; empty for an unpartitioned asset"),
            "code_version": _text("Version of the code and settings that made it"),
            "input_version": _text("Data versions of what it was made from"),
            "data_version": _text("Version of what it holds"),
            "parts": _text(
                "Versions of its parts as JSON, where what is made from it reads a part alone",
                nullable=True,
            ),
            "dagster_run_id": _text("Dagster run that made it"),
            "materialized_at": _time("When it was made"),
        },
    ),
    Table(
        "attempts",
        ("asset", "document_id"),
        {
            "asset": _text("Asset that could not be made, or not wholly"),
            "document_id": _text("Of which document; empty for an unpartitioned asset"),
            "cause": _text("What kind of thing went wrong"),
            "error": _text("What went wrong, in one line"),
            "code_version": _text("Version of the code and settings that tried"),
            "input_version": _text("Data versions of what it was tried on"),
            "limit_reached": _number(
                "Limit that it ran into, in seconds; null where it ran into none", nullable=True
            ),
            "tried_with": _text(
                "Version of what it was tried with: passwords, OCR's languages; null where "
                "nothing of that kind helps",
                nullable=True,
            ),
            "attempts": _integer("How often it was tried in vain"),
            "tried_at": _time("When it was tried last"),
            "next_at": _time(
                "When it is tried again; null where only a change or a person starts it again",
                nullable=True,
            ),
            "dagster_run_id": _text("Dagster run that tried last"),
        },
    ),
    Table(
        "former_paths",
        ("path",),
        {
            "path": _text("Path that a document had, relative to the PDF folder"),
            "document_id": _text("The same document under the path that it has now"),
        },
    ),
    Table(
        "departed",
        ("path",),
        {
            "path": _text("Path of a PDF that is no longer on record, as it was last or before"),
            "sha256": _text("sha256 of its content"),
            "document_id": _text("The id that it had when it left"),
            "departed_at": _time("When it left the folder, or another PDF took its place there"),
        },
    ),
    Table(
        "removals",
        ("removed_at",),
        {
            "removed_at": _time("When documents that had left the folder were removed"),
            "documents": _integer("How many they were"),
        },
    ),
    Table(
        "pair_changes",
        ("changed_at",),
        {
            "changed_at": _time("When the pairs that train or validate became what they are"),
            "version": _text("Version of these pairs, as in the ledger"),
        },
    ),
    Table(
        "forgotten",
        ("path", "sha256"),
        {
            "path": _text("Path of a PDF that was forgotten, relative to the PDF folder"),
            "sha256": _text("sha256 of its content; empty where nobody knew it any more"),
            "document_id": _DOCUMENT_ID,
            "versions": _texts("Versions that were trained on it"),
            "forgotten_at": _time("When it was forgotten"),
            "command": _text("Who forgot it, by which command"),
        },
    ),
    Table(
        "models",
        ("version",),
        {
            "version": _text("Version of the model in the MLflow registry"),
            "base": _text("Model that was fine-tuned"),
            "path": _text("Folder of the model"),
            "input_version": _text("Version of the pairs that it was trained and validated on"),
            "mlflow_run_id": _text("MLflow run that trained it"),
            "dagster_run_id": _text("Dagster run that trained it"),
            "trained_at": _time("When it was trained"),
            "fingerprints": _texts(
                "What its embeddings are kept under; null where an older version made the row",
                nullable=True,
            ),
            "settings": _text(
                "Settings that it was trained with, as JSON; null in rows of before this was kept",
                nullable=True,
            ),
            "code": _text("Version of the package that trained it, and its commit", nullable=True),
            "machine": _text("Machine that it was trained on", nullable=True),
            "identity": _text("Digest of all that decides its vectors", nullable=True),
            "base_identity": _text(
                "The same of its base, as it was when it was fine-tuned", nullable=True
            ),
            "trained_from": _text(
                "Version that it was trained on from; null where it was the base", nullable=True
            ),
            "pairs": _text(
                "Parquet file of the pairs that it was trained on, relative to the home",
                nullable=True,
            ),
            "base_revision": _text(
                "Revision of the base in its hub, or version of its package", nullable=True
            ),
            "splits": _text(
                "Questions of each split at the time, as JSON: split and count", nullable=True
            ),
            "seconds": _number("Seconds of the training, killed parts included", nullable=True),
            "energy_wh": _number(
                "Watt-hours that the machine took for it, where it can be read", nullable=True
            ),
            "energy_of": _text("Parts of the machine whose energy was read", nullable=True),
        },
    ),
    Table(
        "model_documents",
        ("version", "document_id"),
        {
            "version": _text("Version of the model in the MLflow registry"),
            "document_id": _DOCUMENT_ID,
            "path": _text("Path relative to the PDF folder at the time"),
            "sha256": _text("sha256 of the PDF that was read"),
            "questions": _integer("Questions of this document that the model was trained on"),
        },
    ),
)

TABLES: Mapping[str, Table] = {table.name: table for table in _TABLES}

COLUMN_SOURCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "parsed_markdown": {
        "document_id": ("raw_pdfs.document_id",),
        "markdown": ("raw_pdfs.content",),
        "page": ("raw_pdfs.content",),
    },
    "chunks": {
        "document_id": ("parsed_markdown.document_id",),
        "chunk_id": ("parsed_markdown.markdown",),
        "chunk_text": ("parsed_markdown.markdown",),
        "heading_path": ("parsed_markdown.markdown",),
        "page_start": ("parsed_markdown.page",),
        "page_end": ("parsed_markdown.page",),
        "token_count": ("parsed_markdown.markdown",),
        "file_name": ("raw_pdfs.file_name",),
    },
    "synthetic_questions": {
        "document_id": ("chunks.document_id",),
        "chunk_id": ("chunks.chunk_id",),
        "relevant_chunk_ids": ("chunks.chunk_id",),
        "question": ("chunks.chunk_text", "chunks.heading_path"),
    },
    "chunk_embeddings": {
        "document_id": ("chunks.document_id",),
        "chunk_index": ("chunks.chunk_index",),
        "chunk_id": ("chunks.chunk_id",),
        "embedding": ("chunks.chunk_text",),
    },
    "training_pairs": {
        "question_id": ("synthetic_questions.question_id",),
        "anchor": ("synthetic_questions.question",),
        "positive": ("chunks.chunk_text",),
        "global_chunk_id": ("synthetic_questions.chunk_id",),
        "relevant_chunk_ids": ("synthetic_questions.relevant_chunk_ids",),
        "document_id": ("synthetic_questions.document_id",),
        "generator": ("synthetic_questions.generator",),
        "split": ("chunks.chunk_id", "raw_pdfs.sha256", "synthetic_questions.purpose"),
    },
}
"""Where the columns of each asset's table come from: column -> table.column upstream."""
