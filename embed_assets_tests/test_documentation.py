"""What the pages say is so: settings, commands, links, checks."""

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from embed_assets.command.cli import app
from embed_assets.settings import PREFIX, Settings, settings_table

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
ENV_EXAMPLE = REPOSITORY / ".env.example"
PAGES = sorted(
    page
    for where in ("*.md", "docs/*.md", "examples/*.md", "deploy/**/*.md")
    for page in REPOSITORY.glob(where)
)
NOT_SETTINGS = {f"{PREFIX}MLFLOW_UI"}
"""Variables that processes of the program hand to each other."""
OF_OLD = {REPOSITORY / "CHANGELOG.md"}
"""Pages that name what is no more."""

pytestmark = pytest.mark.skipif(not README.is_file(), reason="the package alone is installed")


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def variables() -> set[str]:
    return {PREFIX + name.upper() for name in Settings.model_fields}


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def test_the_page_of_settings_is_as_the_code_has_them():
    assert settings_table() in read(REPOSITORY / "docs" / "settings.md")


def test_the_readme_explains_eight_settings_with_their_defaults():
    rows = re.findall(r"^\| `(EMBED_ASSETS_\w+)` \| (.*?) \|", read(README), re.MULTILINE)
    assert len(rows) == 8
    assert all(f"| `{name}` | {default} |" in settings_table() for name, default in rows)


@pytest.mark.parametrize("page", [ENV_EXAMPLE, *PAGES], ids=lambda page: page.name)
def test_a_page_names_no_setting_that_there_is_not(page):
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", read(page)))
    assert page in OF_OLD or named <= variables() | NOT_SETTINGS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_what_is_there(page):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", read(page)):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", read(linked), re.MULTILINE)
            assert heading in map(anchor, headings), f"{target}#{heading}"


def test_the_code_points_at_pages_and_programs_that_are_there():
    files = [*REPOSITORY.glob("embed_assets/**/*.py"), *REPOSITORY.glob("benchmarks/*.py")]
    pattern = r"\b(?:docs|benchmarks|examples)/[\w/-]+\.(?:md|py)"
    named = {path for file in files for path in re.findall(pattern, read(file))}
    assert "docs/results.md" in named
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


def test_the_readme_lists_every_command():
    listed = re.findall(r"^\| `embed-assets ([\w-]+)", read(README), re.MULTILINE)
    assert sorted(set(listed)) == sorted(get_command(app).list_commands(None))  # type: ignore


def test_every_line_of_the_example_of_an_env_file_is_a_setting_that_is_taken(tmp_path, monkeypatch):
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    lines = re.findall(r"^# ((?:EMBED_ASSETS|OPENAI)_\w+=.*)$", read(ENV_EXAMPLE), re.MULTILINE)
    file = tmp_path / ".env"
    file.write_text("\n".join(lines), encoding="utf-8")
    taken = Settings(_env_file=file)  # type: ignore
    set_there = {line.partition("=")[0] for line in lines if line.startswith(PREFIX)}
    assert {PREFIX + name.upper() for name in taken.model_fields_set} == set_there


def test_the_hooks_before_a_commit_are_checks_of_make_test():
    config = yaml.safe_load(read(REPOSITORY / ".pre-commit-config.yaml"))
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    recipe = read(REPOSITORY / "Makefile").replace("$(BIN)", ".venv/bin").splitlines()
    assert hooks
    assert set(hooks) <= {line.strip() for line in recipe}


def test_the_changelog_has_the_version_of_the_package():
    package = re.search(r'^version = "(.*)"$', read(REPOSITORY / "pyproject.toml"), re.MULTILINE)
    assert package
    assert f"## {package[1]}" in read(REPOSITORY / "CHANGELOG.md")
