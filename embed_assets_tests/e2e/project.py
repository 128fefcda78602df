"""A PDF folder and a home, and the command that works on them, for end-to-end tests."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb


@dataclass(frozen=True)
class Call:
    """One call of the command: its exit status and what it said."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.out)


@dataclass(frozen=True)
class Project:
    """A PDF folder and a home, and the command that works on them."""

    command: str
    environment: dict[str, str]
    pdfs: Path
    home: Path

    def call(self, *arguments: str, **settings: str) -> Call:
        done = subprocess.run(
            [self.command, *arguments, "--pdfs", str(self.pdfs), "--home", str(self.home)],
            env={**self.environment, **settings},
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Call(done.returncode, done.stdout, done.stderr)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(self.home / "warehouse.duckdb", read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def copy(self, folder: Path) -> "Project":
        pdfs, home = folder / "pdfs", folder / "home"
        shutil.copytree(self.pdfs, pdfs)
        shutil.copytree(self.home, home)
        return Project(self.command, self.environment, pdfs, home)
