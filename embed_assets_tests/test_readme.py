from pathlib import Path

from embed_assets.settings import settings_table

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_lists_every_setting_as_the_code_has_it() -> None:
    assert settings_table() in README.read_text(encoding="utf-8")
