"""What `check` prints: what of a home is damaged, what is left over, and how it is mended.

Changes nothing unless it is asked to mend. What a killed run left is no damage: the next one clears
it.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from embed_assets.automation.living import AT_WORK, lives
from embed_assets.automation.runs import BY_COMMAND, end_dead_runs
from embed_assets.automation.state import code_versions
from embed_assets.command.instance import point_dagster_at
from embed_assets.command.pipeline import at_rest
from embed_assets.errors import ProjectError, SettingsError
from embed_assets.machine import processes_with
from embed_assets.models.card import version_card
from embed_assets.models.files import DAMAGED
from embed_assets.models.identity import model_identity
from embed_assets.models.registry import (
    aliases,
    lost_artifacts,
    register_again,
    registered_numbers,
    remove_logged,
    unregistered_models,
    version_folders,
)
from embed_assets.models.whole import why_broken
from embed_assets.resources.ledger import read_records
from embed_assets.resources.patience import answering_at_once
from embed_assets.resources.soundness import (
    MADE_AGAIN,
    Damage,
    damaged_slices,
    damaged_tables,
    forget_slices,
    makes_again,
    mend_tables,
)
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.storage import PRIVATE, is_writable, sqlite_files, sqlite_trouble
from embed_assets.tables import TABLES
from embed_assets.training.claims import held_lock, training_folders
from embed_assets.wording import counted

LISTED = 20
RUN, MEND, PERSON = "run", "check --mend", "person"
"""Who mends: the next run by itself, `check --mend` and then the next run, or a person."""
KEPT = "damaged"
"""Folder of a home for rows of tables that had to be made anew."""


@dataclass(frozen=True)
class Left:
    """What is left over, and harms nobody. mended_by: as in the summary."""

    what: str
    found: str
    mended_by: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Found:
    """What a check found. unchecked: what could not be looked at, and why."""

    damage: tuple[Damage, ...]
    left: tuple[Left, ...]
    unchecked: Mapping[str, str]
    counts: Mapping[str, int]


def check_home(settings: Settings, *, mend: bool = False, deep: bool = False) -> dict[str, Any]:
    """What `check --json` prints. SettingsError where there is no home.

    mend: whether to have what is damaged made again, and to remove what is left over. deep: whether
    every byte of PDFs and models is read.
    """
    if not settings.home.is_dir() or not any(settings.home.iterdir()):
        raise SettingsError(
            f"EMBED_ASSETS_HOME: there is nothing in {settings.home} yet. Give the home with "
            "--home, or fill this one with `embed-assets run`."
        )
    found = _look(settings, deep=deep)
    mended: list[str] = []
    if mend and (found.damage or found.left):
        mended = _mend(settings, found)
        found = _look(settings, deep=deep)
    return {
        "whole": not found.damage,
        "checked": dict(found.counts),
        "damaged": [_row(damage) for damage in found.damage],
        "left": [vars(left) for left in found.left],
        "unchecked": [{"what": w, "reason": reason} for w, reason in found.unchecked.items()],
        "mended": mended,
        "made_again": makes_again(found.damage),
    }


def _row(damage: Damage) -> dict[str, Any]:
    by = MEND if damage.can_be_mended else PERSON
    return {
        "what": damage.what,
        "found": damage.found,
        "mended_by": by,
        "remedy": damage.remedy or _remedy(damage),
    }


def _remedy(damage: Damage) -> str:
    """What is done about damage that the project mends by itself."""
    if damage.strays:
        return "`embed-assets check --mend` removes them."
    if damage.table and damage.table not in MADE_AGAIN:
        return "`embed-assets check --mend` builds the table anew if its rows fit."
    if damage.table or damage.slices:
        return "`embed-assets check --mend`, and then the next run makes it again."
    return "`embed-assets check --mend` registers it again."


def _look(settings: Settings, *, deep: bool) -> Found:
    """Everything, whatever of it is broken."""
    damage: list[Damage] = []
    left: list[Left] = []
    unchecked: dict[str, str] = {}
    counts = {"tables": 0, "rows": 0, "slices": 0, "versions": 0}
    warehouse = Warehouse.of(settings)
    damage += _databases(settings)
    broken = {row.what for row in damage}
    try:
        damage += _warehouse(settings, warehouse, unchecked, counts, deep=deep)
    except ProjectError as error:
        damage.append(Damage(warehouse.short_name, "it can't be used", remedy=str(error)))
    else:
        if not any(row.table for row in damage):
            damage += _versions(settings, warehouse, unchecked, counts, deep=deep)
            if "mlflow.db" not in broken:
                _ask(unchecked, lambda: left.extend(_logged(settings)))
    if not any(name.startswith("dagster") for name in broken):
        left += _runs(settings, unchecked)
    left += _files(settings)
    return Found(tuple(damage), tuple(left), unchecked, counts)


def _databases(settings: Settings) -> Iterable[Damage]:
    for file in sqlite_files(settings.home):
        if said := sqlite_trouble(file):
            name = file.relative_to(settings.home).as_posix()
            yield Damage(name, "it can't be used", remedy=said)


def _warehouse(
    settings: Settings,
    warehouse: Warehouse,
    unchecked: dict[str, str],
    counts: dict[str, int],
    *,
    deep: bool,
) -> list[Damage]:
    tables = warehouse.stored_tables()
    counts["tables"] = len(tables)
    if damage := damaged_tables(warehouse):
        unchecked["rows"] = "tables are damaged: they come first"
        return damage
    counts["rows"] = sum(warehouse.count(name) for name in tables if name in TABLES)
    records = read_records(warehouse)
    counts["slices"] = len(records.made)
    try:
        versions = code_versions(settings)
    except ProjectError as error:
        versions = {}
        unchecked["what rows say"] = str(error)
    return damaged_slices(warehouse, records, versions, deep=deep)


def _versions(
    settings: Settings,
    warehouse: Warehouse,
    unchecked: dict[str, str],
    counts: dict[str, int],
    *,
    deep: bool,
) -> list[Damage]:
    """Versions on record against their folders, and against MLflow."""
    folders = version_folders(warehouse)
    counts["versions"] = len(folders)
    named: dict[str, str] = {}
    known: set[str] = set()
    lost: list[str] = []
    tracking = Tracking(home=str(settings.home), project=settings.project)

    def ask() -> None:
        known.update(registered_numbers(tracking))
        lost.extend(lost_artifacts(tracking) if tracking.database else [])
        named.update({v: alias for alias, v in aliases(warehouse, settings).items() if v})

    answered = _ask(unchecked, ask)
    damage = []
    newest = next(reversed(folders), None)
    last = max(map(int, known), default=0)
    sql = "SELECT version, identity FROM models WHERE identity IS NOT NULL"
    identities = dict(warehouse.read(sql).iter_rows())
    for version, (folder, _) in folders.items():
        said = why_broken(folder, deep=deep)
        is_deleted = int(version) < last  # by a person in MLflow, which counted beyond it
        if deep and not said:
            said = why_not_as_trained(folder, identities.get(version))
        needed = named.get(version) or ("the newest" if version == newest else None)
        if said and (needed or folder.is_dir()):  # a person may delete what nothing needs
            copy = "" if version in lost else " MLflow has a copy: download it from the run's page."
            remedy = f"Put {folder} back from a backup.{copy}"
            of = f"version {version}" + (f", {needed}" if needed else "")
            damage.append(Damage(of, said, remedy=remedy))
        elif answered and not said and version not in known and (needed or not is_deleted):
            remedy = "It was deleted there, or its database is older: put that back." * is_deleted
            damage.append(Damage(f"version {version}", "MLflow doesn't know it", remedy=remedy))
    for version in lost:
        if version in folders and not why_broken(folders[version][0]):
            said = "its files in mlartifacts/ are gone"
            remedy = "Search and training need models/ alone; MLflow can't serve this version."
            damage.append(Damage(f"version {version}", said, remedy=remedy))
    return damage


def why_not_as_trained(folder: Path, identity: str | None) -> str | None:
    """Whether the files of a version are others than those on record, in words."""
    try:
        if identity is None or model_identity(version_card("tuned", folder)) == identity:
            return None
    except DAMAGED as error:
        return f"{folder}: its JSON files are damaged ({type(error).__name__}: {error})"
    return f"the files in {folder} are not those that were trained"


def _ask(unchecked: dict[str, str], ask: Callable[[], None]) -> bool:
    """Ask MLflow, which may be down; whether it answered."""
    try:
        with answering_at_once():
            ask()
    except ProjectError as error:
        unchecked["MLflow"] = str(error)
        return False
    return True


def _logged(settings: Settings) -> Iterable[Left]:
    """Models that a killed run logged and never registered."""
    tracking = Tracking(home=str(settings.home), project=settings.project)
    for model in unregistered_models(tracking):
        size = _size(tracking.artifacts / "models" / model.model_id)
        yield Left(f"mlartifacts/models/{model.model_id}", "never registered", MEND, size)


def _runs(settings: Settings, unchecked: dict[str, str]) -> list[Left]:
    """Dagster runs that no process is at."""
    if not is_writable(settings.dagster_home / "dagster.yaml"):
        if settings.dagster_home.exists():
            unchecked["Dagster's runs"] = f"{settings.dagster_home} may not be written to"
        return []
    point_dagster_at(settings)
    with dg.DagsterInstance.get() as instance:
        records = instance.get_run_records(dg.RunsFilter(statuses=AT_WORK))
        dead = [r.dagster_run.run_id for r in records if not _is_alive(settings, r)]
    said = "no process is at it any more"
    return [Left(f"Dagster run {run_id[:8]}", said, RUN) for run_id in dead]


def _is_alive(settings: Settings, record: dg.RunRecord) -> bool:
    if BY_COMMAND in record.dagster_run.tags:
        return any(_holders(settings))
    return lives(settings, record)


def _holders(settings: Settings) -> list[str]:
    return processes_with(settings.home / "command.lock")


def _files(settings: Settings) -> Iterable[Left]:
    """Files that a killed run left behind, and rights that others have."""
    if held_lock(settings.models) is None:
        for folder in training_folders(settings.models):
            found = "a training that was cut off: the same goes on from it, another deletes it"
            yield Left(f"models/{folder.name}", found, RUN, _size(folder))
    for file in sorted(settings.home.rglob("*.unfinished")):
        name = file.relative_to(settings.home).as_posix()
        yield Left(name, "begun and never finished", RUN, file.stat().st_size)
    if os.name == "posix" and settings.home.stat().st_mode & PRIVATE:
        found = f"others may open it. If they shall not: chmod -R go= {settings.home}"
        yield Left(str(settings.home), found, PERSON)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _mend(settings: Settings, found: Found) -> list[str]:
    """Mend what can be mended, while nobody is at work in the home; says what was done."""
    warehouse = Warehouse.of(settings)
    tracking = Tracking(home=str(settings.home), project=settings.project)
    done = []
    damage = [row for row in found.damage if row.can_be_mended]
    with at_rest(settings) as instance:
        if any(row.table for row in damage):
            left = mend_tables(warehouse, damage, settings.home / KEPT)
            tables = dict.fromkeys(row.table for row in damage if row.table)
            still = {row.what for row in left}
            done += [f"table {name} built anew" for name in tables if name not in still]
            if still:
                return done
            # Only now can rows be looked at.
            damage = [row for row in _look(settings, deep=False).damage if row.can_be_mended]
        end_dead_runs(instance, settings)
        with warehouse.transaction() as transaction:
            forget_slices(transaction, damage)
        done += [f"{row.what}: {row.found}" for row in damage if row.slices or row.strays]
        if "MLflow" not in found.unchecked:
            again = register_again(tracking, _whole_versions(warehouse))
            done += [f"version {version} registered again" for version in again]
            for model in unregistered_models(tracking):
                remove_logged(tracking, model)
                done.append(f"mlartifacts/models/{model.model_id} removed")
    return done


def _whole_versions(warehouse: Warehouse) -> dict[str, tuple[Path, str]]:
    known = version_folders(warehouse)
    return {v: (folder, run) for v, (folder, run) in known.items() if not why_broken(folder)}


def check_text(summary: Mapping[str, Any]) -> str:
    """The check for a person."""
    counts = summary["checked"]
    said = ", ".join(counted(number, name.removesuffix("s")) for name, number in counts.items())
    lines = [f"Checked: {said}."]
    for title, rows in (
        ("Mended:", summary["mended"]),
        ("Damaged:", [f"{r['what']}: {r['found']}. {r['remedy']}" for r in summary["damaged"]]),
        ("Left over:", [_left_text(row) for row in summary["left"]]),
        ("Not checked:", [f"{r['what']}: {r['reason']}" for r in summary["unchecked"]]),
    ):
        if rows:
            lines += [title, *(f"  {row}" for row in rows[:LISTED])]
        if len(rows) > LISTED:
            lines.append(f"  … and {len(rows) - LISTED:,} more: --json lists all")
    if summary["made_again"]:
        lines.append(f"Once mended, the next run makes again: {', '.join(summary['made_again'])}.")
    lines.append("Nothing is damaged." if summary["whole"] else "The home is damaged.")
    return "\n".join(lines)


def _left_text(row: Mapping[str, Any]) -> str:
    size = f" ({row['size_bytes'] / 1e6:.1f} MB)" if row["size_bytes"] else ""
    by = {RUN: " The next run clears it.", MEND: " `check --mend` removes it."}
    return f"{row['what']}{size}: {row['found']}.{by.get(row['mended_by'], '')}"
