"""`embed-assets publish`: a version for others, in a folder or in a repository of Hugging Face.

What goes out is the model, its card and nothing that quotes a document: the pairs and what the
training read stay. The questions and the corpus by which it was measured go out only where a person
says so, and beside the model.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from embed_assets.errors import ProjectError, SettingsError, one_line
from embed_assets.evaluation.scoring import RetrievalTask, retrieval_task
from embed_assets.models.identity import READ, SAME_AS
from embed_assets.models.network import RUNTIMES, Format, check_exportable
from embed_assets.models.registry import newest_model, trained_version
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.bundle.writing import check_free, whole
from embed_assets.training.exported import Check, add_network
from embed_assets.training.kept import KEPT
from embed_assets.training.usual_form import write_usual_form
from embed_assets.wording import counted, in_lines

PART_OF_NAME = re.compile(r"[\w.-]++")
TOKEN = "HF_TOKEN"
ABOUT = "publish"
CARD = "README.md"
QUESTIONS = "questions"
"""What the folder or the dataset of the questions is called, behind the model's name."""
Write = Callable[[Path], dict[str, Any]]
"""Writes what is published of a model into a folder; gives `files` and `exported`."""


def publish_version(
    settings: Settings,
    version: str,
    to: str,
    *,
    public: bool = False,
    with_data: bool = False,
    form: Format | None = None,
) -> dict[str, Any]:
    """Publish a version; gives version, to, files, public, data: where the questions are.

    to: a folder (with a `/` or `.` before it, or one that is there), or `OWNER/NAME` of a
    repository of Hugging Face. form: in which the network goes out too, for other runtimes;
    `exported` of what is given says how `add_network` found it. ProjectError where there is no such
    version, its folder is gone, the network can't be exported or ranks otherwise, or the hub
    refuses; SettingsError where the place won't do, or the model for this form.
    """
    warehouse = Warehouse.of(settings)
    known = trained_version(newest_model(warehouse, version))
    source = Path(known.card.source)
    if form:
        check_exportable(str(source), form)
    task = retrieval_task(warehouse) if with_data or form else None
    data = task if with_data else None
    if data is not None and data.questions.is_empty():
        raise ProjectError("--with-data: no question tests yet, so there is nothing to publish.")

    def write(place: Path) -> dict[str, Any]:
        copy_model(source, place)
        write_usual_form(place, known.card.token_limit)  # versions of before have another
        check = add_network(place, form, task) if form and task else None
        if check:
            _describe(check, place / CARD, to if _is_repository(to) else ".")
        return {"files": _files(place), "exported": check and check.as_dict()}

    if _is_repository(to):
        published = _to_hub(write, data, to, known.number, public=public)
    else:
        if public:
            raise SettingsError("--public is for a repository of Hugging Face.", ABOUT)
        folder = Path(os.path.abspath(Path(to).expanduser()))
        published = _to_folder(write, data, folder, settings)
    return {"version": known.number, "public": public, **published}


def _is_repository(to: str) -> bool:
    """Whether this names a repository rather than a folder."""
    parts = to.split("/")
    named = len(parts) == 2 and all(PART_OF_NAME.fullmatch(part) for part in parts)
    return named and not to.startswith(".") and not Path(to).exists()


def _to_folder(
    write: Write, task: RetrievalTask | None, folder: Path, settings: Settings
) -> dict[str, Any]:
    beside = folder.with_name(f"{folder.name}-{QUESTIONS}")
    for place in (folder, *([beside] if task else [])):
        check_free(place, settings.home, ABOUT)
    with whole(folder) as unfinished:
        written = write(unfinished)
        if task is not None:
            with whole(beside) as unfinished_data:
                write_questions(task, unfinished_data)
    return {"to": str(folder), "data": str(beside) if task else None, **written}


def _to_hub(
    write: Write, task: RetrievalTask | None, name: str, version: str, *, public: bool
) -> dict[str, Any]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not os.environ.get(TOKEN):
        raise SettingsError(f"Set {TOKEN} to a token of Hugging Face that may write.", TOKEN)
    api = HfApi(token=os.environ[TOKEN])
    questions = f"{name}-{QUESTIONS}"
    said = f"Version {version}"
    try:
        _check_private(api, name, "model", public=public)
        if task is not None:
            _check_private(api, questions, "dataset", public=public)
    except (HfHubHTTPError, OSError) as error:
        raise _refused(name, error) from error
    with tempfile.TemporaryDirectory() as temporary:
        model, data = Path(temporary, "model"), Path(temporary, "data")
        model.mkdir()
        written = write(model)
        if task is not None:
            data.mkdir()
            write_questions(task, data)
        try:
            if task is not None:
                _upload(api, data, questions, "dataset", said, public=public)
            _upload(api, model, name, "model", said, public=public)
        except (HfHubHTTPError, OSError) as error:
            raise _refused(name, error) from error
    address = f"{api.endpoint}/{name}"
    data_at = f"{api.endpoint}/datasets/{questions}" if task else None
    return {"to": address, "data": data_at, **written}


def _refused(name: str, error: Exception) -> ProjectError:
    return ProjectError(f"Hugging Face, {name}: {one_line(str(error))}")


def _check_private(api: Any, name: str, kind: str, *, public: bool) -> None:
    """SettingsError where a repository is public already and nobody said that this may be."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.repo_info(name, repo_type=kind)
    except RepositoryNotFoundError:
        return
    if not there.private and not public:
        raise SettingsError(f"{name} is public. Say --public if this may be.", ABOUT)


def _upload(api: Any, folder: Path, name: str, kind: str, said: str, *, public: bool) -> None:
    api.create_repo(name, repo_type=kind, private=not public, exist_ok=True)
    api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message=said)


def copy_model(source: Path, place: Path) -> None:
    """Copy a version's model and card into a folder that is there."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not _goes_out(Path(folder, name).relative_to(source))]

    shutil.copytree(source, place, ignore=left_out, dirs_exist_ok=True)


def _files(place: Path) -> list[str]:
    return sorted(f.relative_to(place).as_posix() for f in place.rglob("*") if f.is_file())


def _goes_out(path: Path) -> bool:
    """Whether a file or folder of a version is part of the model: all else may quote documents."""
    if path.parts[0] == KEPT or path.name == SAME_AS:
        return False
    return not path.suffix or path.suffix in READ or path.name == CARD


def _describe(check: Check, card: Path, to: str) -> None:
    """Say in a model's card, where it has one, how to load its exported network."""
    if card.is_file():
        with card.open("a", encoding="utf-8") as text:
            text.write(
                f"\n## For {RUNTIMES[check.format]}\n\n"
                f"`{check.file}` is the network of this model, for CPUs: {check}.\n\n"
                f"```\npip install 'sentence-transformers[{check.format}]'\n```\n\n"
                "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
                f'model = SentenceTransformer("{to}", backend="{check.format}")\n```\n'
            )


def write_questions(task: RetrievalTask, folder: Path) -> None:
    """Write what a version was measured on as a BEIR folder, with a card for Hugging Face.

    corpus.jsonl and queries.jsonl hold `_id` and `text`; `qrels/SPLIT.tsv` says what answers.
    """
    splits = task.questions["split"].unique().sort().to_list()
    _write_lines(folder / "corpus.jsonl", task.texts)
    _write_lines(folder / "queries.jsonl", task.queries)
    (folder / "qrels").mkdir()
    for split in splits:
        rows = task.questions.filter(split=split).select(
            pl.col("question_id").alias("query-id"),
            pl.col("relevant_chunk_ids").alias("corpus-id"),
            pl.lit(1).alias("score"),
        )
        rows.explode("corpus-id").write_csv(folder / "qrels" / f"{split}.tsv", separator="\t")
    (folder / "README.md").write_text(_dataset_card(task, splits), encoding="utf-8")


def _write_lines(file: Path, texts: Mapping[str, str]) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for key, text in texts.items():
            lines.write(json.dumps({"_id": key, "title": "", "text": text}, ensure_ascii=False))
            lines.write("\n")


def _dataset_card(task: RetrievalTask, splits: list[str]) -> str:
    counts = dict(task.questions["split"].value_counts().iter_rows())
    listed = "\n".join(f"- `{split}`: {counted(counts[split], 'question')}" for split in splits)
    return (
        "---\ntask_categories:\n- text-retrieval\ntags:\n- embed-assets\n---\n\n"
        f"# {counted(task.corpus.height, 'passage')} and the questions that they answer\n\n"
        "A BEIR folder: `corpus.jsonl`, `queries.jsonl`, `qrels/SPLIT.tsv`. No question of these "
        f"has trained the model that they measure.\n\n{listed}\n"
    )


def publish_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    who = "" if summary["to"].startswith("/") else ", public" if summary["public"] else ", private"
    lines = [
        f"Version {summary['version']} is in {summary['to']}{who}: "
        f"{counted(len(summary['files']), 'file')}, none of which quotes a document."
    ]
    if exported := summary["exported"]:
        check = Check(**exported)
        lines.append(f"{check.file} is its network for {RUNTIMES[check.format]}: {check}.")
    if summary["data"]:
        lines.append(f"The questions and the whole corpus are in {summary['data']}.")
    return in_lines(lines)
