"""What the page of the settings shows, and what it does not."""

import dagster as dg
import pytest

from embed_assets.errors import SettingsError
from embed_assets.places import to_place
from embed_assets.resources.shown_settings import settings_resource, shown_settings
from embed_assets.settings import Settings


def test_where_everything_lies_is_shown_and_what_is_not_as_by_default(tmp_path):
    settings = Settings(pdfs=tmp_path / "pdfs", home=tmp_path, epochs=7)
    assert shown_settings(settings) == {
        "pdfs": str(tmp_path / "pdfs"),
        "home": str(tmp_path),
        "epochs": "7",
    }
    resource = settings_resource(settings)
    assert type(resource).__name__ == "SettingsOfTheEnvironment"
    assert resource._resolved_config_dict == shown_settings(settings)


def test_no_password_is_shown(tmp_path):
    settings = Settings(pdfs=to_place("s3://me:secret@bucket/pdfs"), home=tmp_path)
    assert "secret" not in str(shown_settings(settings))
    assert "secret" not in str(settings_resource(settings))


def test_a_run_has_the_settings_of_the_environment(tmp_path):
    settings = Settings(home=tmp_path)
    with dg.build_resources({"settings": settings_resource(settings)}) as given:
        assert given.settings is settings


def test_a_run_that_was_launched_with_others_fails_and_says_where_they_are_set(tmp_path):
    resource = settings_resource(Settings(home=tmp_path))
    changed = {**shown_settings(Settings(home=tmp_path)), "pdfs": "elsewhere"}
    other = type(resource)(**changed)
    with pytest.raises(SettingsError, match="EMBED_ASSETS_PDFS: set it in the environment"):
        other.create_resource(dg.build_init_resource_context())
