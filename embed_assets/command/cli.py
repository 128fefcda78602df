"""`embed-assets`: the whole project from a terminal.

Runs are Dagster runs in the same instance as the UI's, so that they show there. Everything a person
reads goes to stderr; stdout carries the result alone, as a table or, with --json, as one object.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import ValidationError

from embed_assets.command import stopping
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.interruptions import none_lost
from embed_assets.lake_address import KEEP_DAYS
from embed_assets.places import absolute
from embed_assets.resources.current_index import read_current
from embed_assets.resources.pages import recall_pages
from embed_assets.secrets import hide_in_logs, hide_secrets
from embed_assets.settings import PREFIX, Settings, wrong_setting
from embed_assets.storage import as_the_person_has_it, keep_private
from embed_assets.terminal import shown_as_text
from embed_assets.wording import counted, printable, printable_lines, to_json

if TYPE_CHECKING:
    from embed_assets.search.searching import Searcher

app = typer.Typer(
    help="Turn a folder of PDFs into a better embedding model, and prove that it is better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Pdfs = Annotated[
    str | None, typer.Option("--pdfs", help="Folder of PDFs, or its URL.", metavar="DIR")
]
Home = Annotated[Path | None, typer.Option("--home", help="Folder of all state.", metavar="DIR")]
Yes = Annotated[bool, typer.Option("--yes", help="Documents on record may be gone, however many.")]
Details = Annotated[
    bool, typer.Option("--details", help="List each thing that could not be used, and why.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


@app.command()
def run(
    pdfs: Pdfs = None,
    home: Home = None,
    yes: Yes = False,
    details: Details = False,
    as_json: Json = False,
) -> None:
    """Bring everything in line with the PDF folder, train what is stale, print the comparison."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.pipeline import bring_up_to_date
        from embed_assets.command.summary import run_summary, run_text

        done = bring_up_to_date(settings, train=True, agreed=yes)
        summary = run_summary(settings, done)
        emit(summary, run_text(summary, details=details))


@app.command()
def ingest(
    pdfs: Pdfs = None,
    home: Home = None,
    yes: Yes = False,
    details: Details = False,
    as_json: Json = False,
) -> None:
    """Bring documents, chunks and questions in line with the PDF folder."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.pipeline import bring_up_to_date
        from embed_assets.command.summary import ingest_summary, ingest_text

        done = bring_up_to_date(settings, train=False, agreed=yes)
        summary = ingest_summary(settings, done)
        emit(summary, ingest_text(summary, details=details))


@app.command()
def status(
    pdfs: Pdfs = None, home: Home = None, details: Details = False, as_json: Json = False
) -> None:
    """Say what is due, what waits, what failed, and which models there are. Changes nothing."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.status import status_summary, status_text

        summary = status_summary(settings)
        emit(summary, status_text(summary, details=details))


@app.command()
def check(
    mend: Annotated[
        bool,
        typer.Option("--mend", help="Have what is damaged made again, remove what is left over."),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte of PDFs and models, too.")
    ] = False,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Say what of the home is damaged or left over, and how it is mended. Changes nothing."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.check import check_home, check_text

        summary = check_home(settings, mend=mend, deep=deep)
        emit(summary, check_text(summary))
        if not summary["whole"]:
            raise typer.Exit(1)


@app.command()
def evaluate(
    beir: Annotated[
        Path,
        typer.Option(
            "--beir",
            help="Folder of corpus.jsonl, queries.jsonl and qrels.tsv or qrels/.",
            metavar="DIR",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="A sentence-transformers name or folder, a version (v3), champion, bm25 or "
            "openai:MODEL. The base model without.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="A file of qrels/; without: qrels.tsv, else qrels/test.tsv."),
    ] = None,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Score any model on a BEIR folder: queries, documents and who answers what."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.scores import score_on_beir, scores_text

        summary = score_on_beir(settings, beir, model, split)
        emit(summary, scores_text(summary))


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("--k", min=1, help="How many chunks to show.")] = 5,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option("--mode", help="By meaning and words, by meaning, or by words."),
    ] = "hybrid",
    base: Annotated[bool, typer.Option("--base", help="By the base model, to compare.")] = False,
    min_cosine: Annotated[
        str | None,
        typer.Option(
            "--min-cosine",
            help="Leave out what has a lower one. auto: what is unlikely to answer.",
            metavar="COSINE",
        ),
    ] = None,
    rerank: Annotated[
        str,
        typer.Option("--rerank", help="A cross-encoder that reads the best once more."),
    ] = "",
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the best chunks for a text, with file and page."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.search.searching import Cut
        from embed_assets.search.shown import search_chunks, search_text

        if min_cosine is not None and mode == "lexical":
            raise SettingsError("--min-cosine: words alone have no cosine.")
        searcher = _searcher(settings)
        least = _least(min_cosine, None if base else searcher.index.manifest.cutoff)
        readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        cut, model = Cut(k, least, rerank), "base" if base else "champion"
        result = search_chunks(settings, searcher, readable, cut, mode, model)
        emit(result, search_text(result))


def _searcher(settings: Settings) -> "Searcher":
    """What searches the home; made ready first where it never was."""
    from embed_assets.resources.warehouse import Warehouse
    from embed_assets.search.searching import NoIndexError, open_searcher

    try:
        return open_searcher(settings)
    except NoIndexError:
        if not Warehouse.of(settings).is_there:
            raise
        from embed_assets.command.pipeline import prepare_search

        typer.echo("Search was never prepared in this home: it is now.", err=True)
        prepare_search(settings)
        return open_searcher(settings)


def _least(min_cosine: str | None, cutoff: float | None) -> float | None:
    """The cosine that results must have, if any."""
    if min_cosine is None:
        return None
    if min_cosine == "auto":
        if cutoff is None:
            raise SettingsError("--min-cosine auto: this model has no cut-off. Give a number.")
        return cutoff
    with suppress(ValueError):
        if -1 <= (least := float(min_cosine)) <= 1:
            return least
    raise SettingsError(f"--min-cosine: a number from -1 to 1, or auto; not '{min_cosine}'.")


@app.command()
def lineage(
    version: Annotated[str | None, typer.Argument(help="Version; the newest without.")] = None,
    document: Annotated[
        str | None,
        typer.Option(
            "--document",
            help="A PDF instead, by its path in the PDF folder: which versions learned from it.",
            metavar="PATH",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Hand the version on, with its proof.", metavar="DIR"),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", help="Say whether a bundle is as it was made.", metavar="DIR"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Who must have signed it: a public key.", metavar="PEM"),
    ] = None,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Say what made a version, or which versions a PDF has made."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command import lineage as found
        from embed_assets.resources.patience import answer_at_once
        from embed_assets.training.bundle.verifying import verification_text, verify_bundle
        from embed_assets.training.bundle.writing import bundle_text, write_bundle

        if document and (version or bundle or verify or key):
            raise SettingsError("lineage: --document goes with no version and no other option.")
        if verify and (version or bundle):
            raise SettingsError("lineage: --verify goes with --key alone.")
        if key and not verify:
            raise SettingsError("lineage: --key goes with --verify.")
        answer_at_once()
        if document:
            summary = found.document_summary(settings, document)
            emit(summary, found.document_text(summary))
        elif verify:
            summary = verify_bundle(verify, key)
            emit(summary, verification_text(summary))
            if not summary["valid"]:
                raise typer.Exit(1)
        elif bundle:
            with as_the_person_has_it():
                summary = write_bundle(settings, version, bundle)
            emit(summary, bundle_text(summary))
        else:
            summary = found.lineage_summary(settings, version)
            emit(summary, found.lineage_text(summary))


Why = Annotated[str | None, typer.Option("--why", help="The reason, for the record.")]


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Version, as `lineage` and MLflow show it.")],
    why: Why = None,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make a version the champion, whatever the comparison says of it."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.champion import promote_version

        _decided(settings, emit, promote_version(settings, version, why))


@app.command()
def rollback(why: Why = None, pdfs: Pdfs = None, home: Home = None, as_json: Json = False) -> None:
    """Go back to the champion before, or to the base model where there was none."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.champion import roll_back

        _decided(settings, emit, roll_back(settings, why))


def _decided(settings: Settings, emit: "Emit", decided: tuple[dict[str, Any], str]) -> None:
    """Say what a person decided, once search goes by it. Trouble with search undoes nothing."""
    from embed_assets.command.pipeline import prepare_search

    summary, text = decided
    try:
        prepare_search(settings)
    except ProjectError as error:
        said = hide_secrets(str(error))
        typer.echo(f"Done, but search is not prepared yet: {printable(said)}", err=True)
    emit(summary, text)


@app.command()
def compact(
    keep_days: Annotated[
        float,
        typer.Option(
            "--keep-days", min=0, help="How long a DuckLake still knows what stood in it before."
        ),
    ] = KEEP_DAYS,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Free the room of deleted rows in the tables, and make few files of many small ones."""
    with _session(None, home, as_json) as (settings, emit):
        from embed_assets.command.compact import compact

        emit(*compact(settings, timedelta(days=keep_days)))


@app.command()
def retrain(
    version: Annotated[str, typer.Argument(help="Version of the model.")],
    check: Annotated[
        bool, typer.Option("--check", help="Keep nothing: only say whether it is the same.")
    ] = False,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Train a version again from its own record, and say whether the same model comes of it."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command.retrain import retrain_and_compare, retrain_text

        if not check:
            raise SettingsError("retrain: give --check; to train anew is `embed-assets run`.")
        summary = retrain_and_compare(settings, version)
        emit(summary, retrain_text(summary))
        if summary["same"] is None:
            raise typer.Exit(1)


@app.command()
def forget(
    paths: Annotated[
        list[str], typer.Argument(help="PDFs, by their paths in the PDF folder.", metavar="PATH…")
    ],
    remember: Annotated[
        bool, typer.Option("--remember", help="Let them in again instead.")
    ] = False,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove all that is left of PDFs, and keep them from coming in again."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command import forget as forgetting

        if remember:
            summary = forgetting.remember_documents(settings, paths)
            emit(summary, forgetting.remember_text(summary))
        else:
            was_searched = read_current(settings.home).index is not None
            summary = forgetting.forget_documents(settings, paths)
            text = forgetting.forget_text(summary)
            if was_searched:
                _decided(settings, emit, (summary, text))
            else:
                emit(summary, text)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="File to write, .jsonl or .json.")],
    file_format: Annotated[
        Literal["jsonl", "argilla"] | None,
        typer.Option("--format", help="By the file's suffix without: .json is Argilla's."),
    ] = None,
    status: Annotated[
        Literal["kept", "all"],
        typer.Option("--status", help="all: those that were dropped too, and why."),
    ] = "kept",
    votes: Annotated[
        bool,
        typer.Option("--votes", help="What people marked on the page of `serve` instead."),
    ] = False,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the questions to a file for review; EMBED_ASSETS_LABELLED reads it back."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.questions.export import export_questions
        from embed_assets.search.votes import export_votes

        if votes:
            with as_the_person_has_it():
                summary = export_votes(settings, Path(os.path.abspath(file.expanduser())))
            emit(summary, f"{counted(summary['questions'], 'question')} in {summary['path']}")
            return
        with as_the_person_has_it():
            summary = export_questions(settings, file, file_format, status)
        emit(summary, f"{counted(summary['questions'], 'question')} in {summary['path']}")


@app.command()
def publish(
    version: Annotated[str, typer.Argument(help="Version of the model.")],
    to: Annotated[
        str, typer.Argument(help="A folder, as ./FOLDER, or OWNER/NAME in Hugging Face.")
    ],
    public: Annotated[
        bool, typer.Option("--public", help="The repository may be seen by everybody.")
    ] = False,
    with_data: Annotated[
        bool,
        typer.Option("--with-data", help="Also the test questions and all chunks, beside it."),
    ] = False,
    form: Annotated[
        Literal["onnx", "openvino"] | None,
        typer.Option("--format", help="Also its network for this runtime, checked to rank alike."),
    ] = None,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Publish a version: its model and card, and no text of any document."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.training.publishing import publish_text, publish_version

        with as_the_person_has_it():
            summary = publish_version(
                settings, version, to, public=public, with_data=with_data, form=form
            )
        emit(summary, publish_text(summary))


@app.command("export-vectors")
def export_vectors(
    file: Annotated[Path, typer.Argument(help="File to write, .parquet or .lance.")],
    file_format: Annotated[
        Literal["parquet", "lance"] | None,
        typer.Option("--format", help="By the file's suffix without."),
    ] = None,
    dimension: Annotated[
        int | None, typer.Option("--dimension", help="A Matryoshka dimension; all without.")
    ] = None,
    bridge: Annotated[
        Path | None,
        typer.Option(
            "--bridge",
            help="An earlier export: also write a map of queries into its space, and how good it "
            "is.",
            metavar="FILE",
        ),
    ] = None,
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Write the embeddings of all chunks by the champion, for a vector store elsewhere."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.search import vectors

        searcher = _searcher(settings)
        old = bridge and vectors.bridge_to(settings, searcher, bridge)
        with as_the_person_has_it():
            target = Path(os.path.abspath(file.expanduser()))
            summary = vectors.export_vectors(searcher, target, file_format, dimension)
            if old is not None:
                beside = target.with_suffix(".bridge.safetensors")
                vectors.write_bridge(old, searcher, beside)
                summary["bridge"] = {
                    "path": str(beside),
                    "recall_at_10": old.recall,
                    "questions": old.questions,
                    "texts": old.texts,
                    "to": old.old_identity,
                }
        emit(summary, vectors.vectors_text(summary))


@app.command()
def ui(
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
    port: Annotated[int, typer.Option("--port", help="Port of Dagster.")] = 3000,
    mlflow_port: Annotated[int, typer.Option("--mlflow-port", help="Port of MLflow.")] = 5000,
    watch: Annotated[
        bool, typer.Option("--watch", help="Both sensors are on: PDFs that come are learned.")
    ] = False,
    no_daemon: Annotated[
        bool,
        typer.Option("--no-daemon", help="Dagster's pages alone: daemon and MLflow are elsewhere."),
    ] = False,
    host: Annotated[
        str, typer.Option("--host", help="With --no-daemon: where to listen, as 0.0.0.0.")
    ] = "127.0.0.1",
) -> None:
    """Open Dagster on 127.0.0.1, and MLflow beside it, on the same state."""
    if watch:
        os.environ[f"{PREFIX}WATCH"] = "1"
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command import servers

        if no_daemon:
            servers.serve_pages(settings, host, port, emit)
        elif host != servers.HOST:
            raise SettingsError("--host needs --no-daemon: the daemon's pages are on 127.0.0.1.")
        else:
            servers.serve(settings, port, mlflow_port, emit)


@app.command()
def watch(pdfs: Pdfs = None, home: Home = None, as_json: Json = False) -> None:
    """Learn the PDFs that come, change and leave, as they do: both sensors, without a page."""
    os.environ[f"{PREFIX}WATCH"] = "1"
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command import servers

        servers.watch(settings, emit)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option("--host", help="Where to listen: by default to this machine alone.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: one that is free.")] = (
        8080
    ),
    pdfs: Pdfs = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Serve the champion: embeddings as OpenAI's API has them, search, and a page for it."""
    with _session(pdfs, home, as_json) as (settings, emit):
        from embed_assets.command import serving
        from embed_assets.search import following

        def follow(settings: Settings) -> following.IndexFollower:
            _searcher(settings)  # makes the home ready where it never was
            return following.IndexFollower(settings).watch()

        serving.serve(settings, host, port, emit, follow)


Emit = Callable[[dict[str, Any], str], None]


@contextmanager
def _session(pdfs: str | None, home: Path | None, as_json: bool) -> Iterator[tuple[Settings, Emit]]:
    """Settings with the shared options applied, and where the result goes; errors end the call."""
    # What libraries and children print goes to stderr.
    stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    said_so: list[bool] = []

    def emit(summary: dict[str, Any], text: str) -> None:
        if as_json and said_so:  # one object, whatever comes after it: that stands in stderr
            return
        said_so.append(True)
        print(to_json(summary) if as_json else printable_lines(text), file=stdout, flush=True)

    for name, value in (("PDFS", pdfs), ("HOME", home)):
        if value is not None:
            # In the environment, so that Dagster's and the training's processes agree.
            os.environ[PREFIX + name] = absolute(str(value))
    stopping.listen()
    try:
        settings = load_settings()
        with shown_as_text(), none_lost(), _disk_explained(settings.home):
            recall_pages(settings.home)
            keep_private(settings.home)
            yield settings, emit
    except ProjectError as error:
        said = hide_secrets(str(error))
        typer.echo(f"embed-assets: {printable(said)}", err=True)
        if as_json:
            emit({"error": said}, "")
        raise typer.Exit(error.status) from error
    except KeyboardInterrupt as interruption:
        typer.echo(f"{_below_the_bar()}embed-assets: {stopping.SAID}", err=True)
        if as_json:
            emit({"error": stopping.SAID}, "")
        raise typer.Exit(stopping.exit_status(interruption)) from None


@contextmanager
def _disk_explained(home: Path) -> Iterator[None]:
    """ProjectError where an error came of the home's disk, or of a file there."""
    try:
        yield
    except ProjectError:
        raise
    except Exception as error:
        from embed_assets.storage import disk_of, trouble_with

        said = trouble_with(disk_of(home), error)
        if said is None:
            raise
        raise ProjectError(said) from error


def _below_the_bar() -> str:
    """In a terminal the cursor stands behind a bar, or behind the ^C that was typed."""
    return "\n" if sys.stderr.isatty() else ""


def load_settings() -> Settings:
    """Settings from the environment and `.env`. SettingsError in one line if one is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise wrong_setting(error) from error


def main() -> None:
    """Entry point of `embed-assets`."""
    # A file of the working directory must not pass for a module in any process started from here:
    # `python -m` looks there first.
    os.environ["PYTHONSAFEPATH"] = "1"
    if sys.getfilesystemencoding() != "utf-8":
        # In another locale the same PDF would have another name, and so be another document.
        if os.environ.get("PYTHONUTF8") == "1":  # and Python was told not to look at that
            sys.exit("embed-assets: Python reads file names in another encoding than UTF-8.")
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    hide_in_logs()
    with shown_as_text():
        try:
            app()
        except Exception:
            sys.stderr.write(hide_secrets(traceback.format_exc()))
            sys.exit(1)


if __name__ == "__main__":
    main()
