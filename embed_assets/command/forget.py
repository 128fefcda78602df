"""`embed-assets forget`: a PDF that must go leaves nothing readable in the home.

What is looked for in files is read from the warehouse, so its rows go last: a command that was
killed before is run again, and one that was killed afterwards has only names left to look for.
"""

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg
import polars as pl
import typer

from embed_assets.automation.jobs import observation
from embed_assets.command.person import this_person
from embed_assets.command.pipeline import at_rest, let_others_end
from embed_assets.comparison.decisions import withdraw_versions
from embed_assets.documents.entries import Rules, spellings
from embed_assets.documents.folder import Loaded, load_documents, read_loaded, record_removal, scan
from embed_assets.documents.forgotten import read_forgotten, remember
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.models.registry import Decision, redact_descriptions
from embed_assets.partitions import DOCUMENTS, document_id
from embed_assets.questions.labelled.moves import read_moved
from embed_assets.questions.labelled.names import FileNames
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.current_index import hide_documents
from embed_assets.resources.kept_pages import drop_kept_pages
from embed_assets.resources.ledger import document_tables
from embed_assets.resources.redaction import FORGOTTEN, Traces, files_below, redact_file
from embed_assets.resources.redaction_postgres import redact_postgres
from embed_assets.resources.tracking import HOME_ID, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.building import forget_indexes
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.terminal import progress_bar
from embed_assets.training.again import folders_again
from embed_assets.training.claims import clear_trainings, delete_training
from embed_assets.training.kept import redact_training, texts_of
from embed_assets.training.record import PAIRS, redact_pairs
from embed_assets.training.tracked import LINEAGE
from embed_assets.wording import in_lines

DOCUMENTS_AT_ONCE = 100
"""Whose texts are read together."""
WHY_WITHDRAWN = "It was trained on a document that was forgotten."


@dataclass(frozen=True)
class Document:
    """A document to forget."""

    path: str
    sha256: str

    @property
    def document_id(self) -> str:
        """Id of the document."""
        return document_id(PurePosixPath(self.path))


@dataclass(frozen=True)
class Subject:
    """All that is forgotten together.

    documents: those that were named, and their copies. names: what these are or were called, by
    path, each with a content that it had. versions: those that were trained on them. taken: ids
    that they had once and others have now.
    """

    documents: tuple[Document, ...]
    names: frozenset[Document]
    versions: tuple[str, ...]
    taken: frozenset[str]

    @property
    def ids(self) -> list[str]:
        """The ids that they have or had."""
        return sorted({name.document_id for name in self.names})

    @property
    def contents(self) -> list[str]:
        """sha256 of every content that they have or had."""
        return sorted({name.sha256 for name in self.names if name.sha256})

    @property
    def places(self) -> dict[str, str]:
        """What takes the place of each path and id: a hash of the path."""
        places = {name.document_id: _place(name.document_id) for name in self.names}
        return places | {name.path: places[name.document_id] for name in self.names}


def _place(key: str) -> str:
    return f"{FORGOTTEN}-{key[-8:]}"


def remember_documents(settings: Settings, paths: Sequence[str]) -> dict[str, Any]:
    """What `forget --remember --json` prints. ProjectError where a path was never forgotten."""
    with at_rest(settings):
        warehouse = Warehouse.of(settings)
        known = read_forgotten(warehouse).paths
        return {"documents": remember(warehouse, [_known_as(path, known) for path in paths])}


def remember_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    lines = [f"{row['path']} may come in again." for row in summary["documents"]]
    return in_lines([*lines, "That it was forgotten is no longer on record."])


def forget_documents(settings: Settings, paths: Sequence[str]) -> dict[str, Any]:
    """Forget documents; gives what `forget --json` prints.

    ProjectError, and nothing is done, where a path is neither on record nor in the folder, or while
    a version is trained again.
    """
    warehouse = Warehouse.of(settings)
    tracking = Tracking(home=str(settings.home), project=settings.project)
    tracking.check_answers()
    said: set[str] = set()
    removed: dict[str, int] = {}
    withdrawn: list[str] = []
    decision = Decision(this_person(), WHY_WITHDRAWN)
    trouble = "Not all is forgotten yet, run it again: MLflow failed"
    with tracking.explained(trouble), at_rest(settings) as instance:
        while True:
            begun = datetime.now(UTC)
            for folder in folders_again(settings.models):
                delete_training(folder)
            subject = find_subject(settings, warehouse, paths)
            said |= _texts(settings, warehouse, subject)
            taken, change = withdraw_versions(settings, tracking, subject.versions, decision)
            withdrawn += taken
            if change is not None:
                instance.report_runless_asset_event(observation(change))
            traces = _traces(warehouse, subject, said)
            hide_documents(settings.home, subject.ids)
            # While Dagster's files still name them.
            for key in {*subject.ids} & {*instance.get_dynamic_partitions(DOCUMENTS)}:
                instance.delete_dynamic_partition(DOCUMENTS, key)
            for table, count in _forget(settings, tracking, subject, traces, paths).items():
                removed[table] = removed.get(table, 0) + count
            # A run that began meanwhile may have written of them.
            if not instance.get_runs(dg.RunsFilter(updated_after=begun), limit=1):
                break
            let_others_end(instance, settings)
    newest = warehouse.read("SELECT version FROM models ORDER BY trained_at DESC LIMIT 1")
    due = any(version in subject.versions for version in newest["version"])
    return {
        "documents": [
            {"document_id": document.document_id, "path": document.path}
            for document in subject.documents
        ],
        "rows": removed,
        "versions": list(subject.versions),
        "withdrawn": withdrawn,
        "retraining": {
            "due": due,
            "reason": f"the newest version was {'' if due else 'not '}trained on what is forgotten",
        },
        "in_folder": _in_folder(settings, subject),
        "not_looked_at": _outside(tracking).out_of_reach,
    }


def forget_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    rows = ", ".join(f"{count} {table}" for table, count in summary["rows"].items())
    lines = [f"Forgotten: {row['path']}" for row in summary["documents"]]
    lines.append(f"Removed: {rows or 'nothing was left'}.")
    if summary["versions"]:
        lines.append(
            f"Trained on it: {', '.join(f'v{v}' for v in summary['versions'])}. Their weights stay "
            "until you delete their folders and their versions in MLflow."
        )
    if summary["withdrawn"]:
        taken = ", ".join(f"v{version}" for version in summary["withdrawn"])
        lines.append(f"Aliases were taken from {taken}.")
    lines.append(f"Training: {summary['retraining']['reason']}.")
    for path in summary["in_folder"]:
        lines.append(f"Still in the PDF folder, and yours to delete: {path}")
    if summary["not_looked_at"]:
        lines.append(
            "On another machine or in another home, and so not looked at: the artifacts of "
            f"MLflow's runs {', '.join(summary['not_looked_at'])}. Delete the reports in them, and "
            f"the pairs ({LINEAGE}/{PAIRS})."
        )
    return in_lines(lines)


def find_subject(settings: Settings, warehouse: Warehouse, paths: Sequence[str]) -> Subject:
    """What is to be forgotten with the documents at these paths."""
    loaded = read_loaded(warehouse)
    forgotten = warehouse.read("SELECT path, sha256, versions FROM forgotten")
    known = [Document(path, sha256) for path, sha256, _ in forgotten.iter_rows()]
    gone_before = _departed(settings, warehouse)
    named = _named(settings, warehouse, loaded, [*gone_before, *known], paths)
    contents = {document.sha256 for document in named if document.sha256}
    copies = [Document(row.path, row.sha256) for row in loaded.values() if row.sha256 in contents]
    documents = tuple(dict.fromkeys([*named, *copies]))
    gone = {document.path for document in documents}
    stay = [row for row in loaded.values() if row.path not in gone]
    trained = warehouse.read("SELECT version, document_id, path, sha256 FROM model_documents")
    names = _names(
        documents,
        _former_paths(warehouse),
        trained,
        {row.path for row in stay},
        {row.sha256 for row in stay},
    )
    contents = {name.sha256 for name in names if name.sha256}
    names |= {row for row in known if row.path in gone or row.sha256 in contents}
    on_record = {row.path for row in stay}
    names |= {row for row in gone_before if row.sha256 in contents and row.path not in on_record}
    ids, contents = {n.document_id for n in names}, {n.sha256 for n in names if n.sha256}
    versions = {
        version
        for version, key, _, sha256 in trained.iter_rows()
        if key in ids or sha256 in contents
    }
    for path, sha256, before in forgotten.iter_rows():
        if Document(path, sha256) in names:
            versions.update(before)
    versions |= _trained_from(warehouse, versions)
    taken = {row.document_id for row in gone_before if row.sha256 in contents} - ids
    return Subject(documents, frozenset(names), tuple(sorted(versions, key=int)), frozenset(taken))


def _former_paths(warehouse: Warehouse) -> dict[str, str]:
    """document_id by a path that the document had."""
    return dict(warehouse.read("SELECT path, document_id FROM former_paths").iter_rows())


def _departed(settings: Settings, warehouse: Warehouse) -> list[Document]:
    """What is on record of PDFs that left the folder, the surest last: in the table of those that
    left, of the versions that were trained on them, and in the pairs kept with these.
    """
    kept = [
        pl.read_parquet(file, columns=["document_id", "path", "sha256"])
        for file in settings.models.glob(f"v*/{PAIRS}")
    ]
    trained = warehouse.read("SELECT document_id, path, sha256 FROM model_documents")
    learned = pl.concat([*kept, trained]).unique(maintain_order=True)
    left = warehouse.read("SELECT path, sha256 FROM departed")
    return [
        # The names of what was forgotten stand there no more.
        *(d for key, *row in learned.iter_rows() if (d := Document(*row)).document_id == key),
        *(Document(path, sha256) for path, sha256 in left.iter_rows()),
    ]


def _named(
    settings: Settings,
    warehouse: Warehouse,
    loaded: Mapping[str, Loaded],
    before: Iterable[Document],
    paths: Sequence[str],
) -> list[Document]:
    """The document at each path: on record by that path or a former one, known from before, by its
    id alone, or unread.

    before: those that left, or were forgotten.
    """
    on_record = {row.path: Document(row.path, row.sha256) for row in loaded.values()}
    on_record |= {
        path: Document(loaded[key].path, loaded[key].sha256)
        for path, key in _former_paths(warehouse).items()
        if key in loaded and path not in on_record
    }
    known = {document.path: document for document in before} | on_record
    wanted = [_known_as(path, known) for path in paths]
    unread = [path for path in wanted if path not in known]
    if unread:
        known |= _unread(settings, unread, _known_ids(settings, warehouse))
    return [known[_known_as(path, known)] for path in wanted]


def _known_as(path: str, known: Collection[str]) -> str:
    """A path that a person typed as it is known, if it is."""
    spelled = spellings(path)
    return next((name for name in spelled if name in known), posixpath.normpath(spelled[0]))


def _known_ids(settings: Settings, warehouse: Warehouse) -> set[str]:
    """Ids of documents of which nothing else may be left than a split or answers."""
    splits = warehouse.read("SELECT id FROM split_assignments WHERE kind = 'document'")
    return {*splits["id"], *AnswerStore.of(settings).documents()}


def _unread(settings: Settings, paths: Sequence[str], ids: Collection[str]) -> dict[str, Document]:
    """Documents that are in the folder alone, or known by their ids alone, whatever they held."""
    by_id = {path: name for path in paths if (name := Document(path, "")).document_id in ids}
    if len(by_id) == len(paths):
        return by_id
    rules = Rules.of(settings)
    found = {file.path: key for key, file in scan(settings.pdfs, rules).items()}
    paths = [_known_as(path, found) for path in paths]
    if unknown := [path for path in paths if path not in found and path not in by_id]:
        raise ProjectError(
            f"{', '.join(unknown)}: neither on record nor in {settings.pdfs}. Give paths relative "
            "to that folder. Nothing was forgotten."
        )
    in_folder = [found[path] for path in paths if path in found]
    slices = load_documents(settings.pdfs, in_folder, "", rules=rules)
    for failure in slices.not_made.values():
        raise ProjectError(f"{failure.error}. Nothing was forgotten.")
    rows = slices.rows.select("path", "sha256").iter_rows()
    return by_id | {path: Document(path, sha256) for path, sha256 in rows}


def _names(
    documents: Iterable[Document],
    former: Mapping[str, str],
    trained: pl.DataFrame,
    paths: Collection[str],
    contents: Collection[str],
) -> set[Document]:
    """What documents are or were called, with what they held: now, or when a version was trained.

    trained: document_id, path and sha256 of model_documents. paths, contents: of documents that
    stay; they are not of these any more.
    """
    names: set[Document] = set()
    for document in documents:
        of_it = {document}
        for path, key in former.items():
            if key == document.document_id:
                of_it.add(Document(path, document.sha256))
        ids = {name.document_id for name in of_it if name.path not in paths}
        for _, key, path, sha256 in trained.iter_rows():
            name = Document(path, sha256)
            # Where the names of one that was forgotten before stand no more, the two differ.
            if name.document_id == key and (key in ids or sha256 == document.sha256):
                of_it.add(name)
        names |= {n for n in of_it if n.path not in paths and n.sha256 not in contents}
    return names


def _trained_from(warehouse: Warehouse, versions: Collection[str]) -> set[str]:
    """Versions whose training went on from one of these, or from one of those."""
    rows = warehouse.read("SELECT version, trained_from FROM models ORDER BY trained_at").rows()
    found = set(versions)
    for version, before in rows:
        if before in found:
            found.add(version)
    return found - set(versions)


def _texts(settings: Settings, warehouse: Warehouse, subject: Subject) -> set[str]:
    """What the documents say, and what was asked about them, that is theirs alone."""
    ids = [subject.ids]
    texts: set[str] = set()
    for sql in (
        "SELECT markdown FROM parsed_markdown WHERE document_id IN (SELECT unnest(?))",
        "SELECT chunk_text FROM chunks WHERE document_id IN (SELECT unnest(?))",
        "SELECT question FROM synthetic_questions WHERE document_id IN (SELECT unnest(?))",
        "SELECT answer FROM synthetic_questions WHERE document_id IN (SELECT unnest(?)) "
        "AND answer IS NOT NULL",
    ):
        texts.update(warehouse.read(sql, ids).to_series())
    for file in settings.models.glob(f"v*/{PAIRS}"):
        pairs = pl.read_parquet(file, columns=["anchor", "positive", "document_id", "sha256"])
        theirs = pl.col("document_id").is_in(subject.ids)
        kept = pairs.filter(theirs | pl.col("sha256").is_in(subject.contents))
        texts.update(kept["anchor"], kept["positive"])
        texts |= texts_of(file.parent, subject.ids, subject.contents)
    called = FileNames({name.path: name.path for name in subject.names})
    for question in read_moved(settings, warehouse):
        if question.file_name in called:
            texts.update([question.question, *question.texts, question.answer or ""])
    return texts


def _traces(warehouse: Warehouse, subject: Subject, texts: Iterable[str]) -> Traces:
    """What to look for in files."""
    stay = [path for key, path in warehouse.paths().items() if key not in subject.ids]
    others = {name for path in stay for name in (path, PurePosixPath(path).name)}
    places = dict(subject.places)
    for name in subject.names:
        file_name = PurePosixPath(name.path).name
        if file_name not in others:
            places[file_name] = places[name.path]
    others_texts = _texts_of_others(warehouse, subject.ids)
    return Traces(places, texts, others, others_texts, subject.taken)


def _texts_of_others(warehouse: Warehouse, ids: Collection[str]) -> Iterator[str]:
    """What documents that stay say, and what was asked about them; read by and by."""
    known = warehouse.read(
        "SELECT document_id FROM chunks UNION SELECT document_id FROM synthetic_questions"
    )["document_id"]
    stay = [key for key in known if key not in ids]
    theirs = "WHERE document_id IN (SELECT unnest($1))"
    for start in range(0, len(stay), DOCUMENTS_AT_ONCE):
        texts = warehouse.read(
            f"SELECT chunk_text FROM chunks {theirs} UNION ALL "
            f"SELECT unnest([question, answer]) FROM synthetic_questions {theirs}",
            [stay[start : start + DOCUMENTS_AT_ONCE]],
        )
        yield from texts.to_series().drop_nulls()


def _forget(
    settings: Settings,
    tracking: Tracking,
    subject: Subject,
    traces: Traces,
    paths: Sequence[str],
) -> dict[str, int]:
    """Take everything out of the home; gives how many rows were removed, by table."""
    warehouse = Warehouse.of(settings)
    removed = AnswerStore.of(settings).forget(subject.ids, traces.quotes)
    outside = _outside(tracking).folders
    copies = [
        file
        for folder in (tracking.artifacts, *outside)
        for file in folder.rglob(f"{LINEAGE}/{PAIRS}")
    ]
    for file in (*settings.models.glob(f"v*/{PAIRS}"), *copies):
        redact_pairs(file, subject.places, subject.contents, FORGOTTEN)
        redact_training(file.parent, subject.places, subject.contents, FORGOTTEN)
    redact_descriptions(tracking, traces.redact)
    clear_trainings(settings.models)
    forget_indexes(settings)
    _redact_files(settings, tracking, outside, traces)
    rows = {"answers": removed, **_forget_rows(warehouse, subject, traces, paths)}
    if warehouse.contents:
        warehouse.contents.drop(subject.contents)
    typer.echo("Writing the warehouse anew, without what was removed.", err=True)
    warehouse.compact()
    return {table: count for table, count in rows.items() if count}


def _redact_files(
    settings: Settings, tracking: Tracking, outside: Iterable[Path], traces: Traces
) -> None:
    """Look through all files of the home, and of MLflow where it lies elsewhere on this machine."""
    files = [file for folder in (settings.home, *outside) for file in files_below(folder)]
    if tracking.database is not None and tracking.database.is_file():
        files.append(tracking.database)
    warehouse = Warehouse.of(settings)
    with progress_bar("Looking through files", len(files), "file") as bar:
        for file in dict.fromkeys(files):
            if not warehouse.holds(file):
                redact_file(file, traces)
            bar.update()
    if settings.dagster_storage:
        redact_postgres(settings.dagster_storage.replace("+psycopg2", "", 1), traces)


def _forget_rows(
    warehouse: Warehouse, subject: Subject, traces: Traces, paths: Sequence[str]
) -> dict[str, int]:
    """Remove rows, and keep the record of what was forgotten, in one transaction."""
    ids, contents = subject.ids, subject.contents
    before = warehouse.read("SELECT path, sha256 FROM forgotten").rows()
    tried = warehouse.read("SELECT asset, document_id, error FROM attempts")
    now, command = datetime.now(UTC), _command(paths)
    record = [
        {
            "path": name.path,
            "sha256": name.sha256,
            "document_id": name.document_id,
            "versions": list(subject.versions),
            "forgotten_at": now,
            "command": command,
        }
        for name in sorted(subject.names, key=lambda name: (name.path, name.sha256))
        if (name.path, name.sha256) not in before
    ]
    theirs = "document_id IN (SELECT unnest($1))"
    with warehouse.transaction() as transaction:
        rows = {
            "query_results": transaction.execute(
                "DELETE FROM query_results WHERE question_id IN "
                f"(SELECT question_id FROM training_pairs WHERE {theirs} UNION "
                f"SELECT question_id FROM synthetic_questions WHERE {theirs})",
                [ids],
            ),
            "split_assignments": transaction.execute(
                "DELETE FROM split_assignments "
                "WHERE kind = 'document' AND id IN (SELECT unnest($1)) "
                f"OR kind = 'chunk' AND id IN (SELECT chunk_id FROM chunks WHERE {theirs}) "
                f"AND id NOT IN (SELECT chunk_id FROM chunks WHERE NOT {theirs})",
                [ids],
            ),
            "former_paths": transaction.execute(
                f"DELETE FROM former_paths WHERE {theirs} OR path IN (SELECT unnest($2))",
                [ids, [name.path for name in subject.names]],
            ),
            "departed": transaction.execute(
                f"DELETE FROM departed WHERE {theirs} OR path IN (SELECT unnest($2)) "
                "OR sha256 IN (SELECT unnest($3))",
                [ids, [name.path for name in subject.names], contents],
            ),
            **{
                table: transaction.delete(table, {"document_id": ids})
                for table in (*document_tables(), "training_pairs")
            },
            "kept_pages": drop_kept_pages(transaction),
            # Those of texts that they held before are known by nobody: what is left is kept.
            "embeddings": transaction.execute(
                "DELETE FROM embeddings WHERE text_id NOT IN (SELECT chunk_id FROM chunks UNION "
                "SELECT md5(question) FROM synthetic_questions)"
            ),
            "model_documents": transaction.execute(
                f"UPDATE model_documents SET document_id = '{FORGOTTEN}-' || right(document_id, 8),"
                f" path = '{FORGOTTEN}-' || right(document_id, 8) "
                f"WHERE ({theirs} OR sha256 IN (SELECT unnest($2))) "
                f"AND document_id <> '{FORGOTTEN}-' || right(document_id, 8)",
                [ids, contents],
            ),
        }
        redacted = tried.with_columns(
            error=pl.Series(map(traces.redact, tried["error"]), dtype=pl.String)
        )
        transaction.update("attempts", redacted.filter(redacted["error"] != tried["error"]))
        table = TABLES["forgotten"]
        transaction.upsert(table.name, pl.DataFrame(record, schema=table.schema))
        if rows["raw_pdfs"]:
            record_removal(transaction, rows["raw_pdfs"])
    return rows


def _command(paths: Sequence[str]) -> str:
    """Who forgets, by which command."""
    return f"{this_person()}: embed-assets forget {' '.join(paths)}"


def _in_folder(settings: Settings, subject: Subject) -> list[str]:
    """Paths in the PDF folder at which a forgotten document still lies."""
    try:
        found = scan(settings.pdfs, Rules.of(settings)).values()
    except SettingsError:
        return []
    gone = {name.path for name in subject.names}
    return [file.path for file in found if file.path in gone]


def _artifacts(tracking: Tracking) -> dict[str, str]:
    """Where the artifacts of each of this home's MLflow runs lie, by the run's id.

    Those of deleted runs too: MLflow keeps them until its `gc`.
    """
    from mlflow.entities import ViewType

    if tracking.is_empty:
        return {}
    client = tracking.client()
    experiment = client.get_experiment_by_name(tracking.name)
    if experiment is None:
        return {}
    found: dict[str, str] = {}
    token: str | None = None
    while True:
        runs = client.search_runs(
            [experiment.experiment_id], run_view_type=ViewType.ALL, page_token=token
        )
        found |= {run.info.run_id: run.info.artifact_uri or "" for run in runs}
        token = runs.token
        if not token:
            return found


def _local(address: str) -> Path | None:
    """The folder at an address, where it is one of this machine."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None


@dataclass(frozen=True)
class Outside:
    """What MLflow keeps outside the home of this home's runs.

    folders: on this machine. out_of_reach: runs whose artifacts are on another machine, or in
    another home, which has a lock of its own.
    """

    folders: Sequence[Path]
    out_of_reach: Sequence[str]


def _outside(tracking: Tracking) -> Outside:
    """Where artifacts lie outside the home.

    MLflow keeps absolute addresses. Those of a home that was moved or copied name the place where
    it was: the files are in the home all the same, and that place may be another home by now.
    """
    home = Path(tracking.home).resolve()
    folders: list[Path] = []
    out_of_reach: list[str] = []
    for run_id, address in _artifacts(tracking).items():
        folder = _local(address)
        if folder is None:
            out_of_reach.append(run_id)
        elif not folder.is_dir() or (place := folder.resolve()).is_relative_to(home):
            continue
        elif not any((above / HOME_ID).is_file() for above in place.parents):
            folders.append(folder)
        elif not _in_this_home(tracking, place):
            out_of_reach.append(run_id)
    return Outside(folders, out_of_reach)


def _in_this_home(tracking: Tracking, folder: Path) -> bool:
    """Whether this home has the artifacts that another home has at a place: one is a copy."""
    _, found, rest = folder.as_posix().rpartition(f"/{tracking.artifacts.name}/")
    return bool(found) and (tracking.artifacts / rest).is_dir()
