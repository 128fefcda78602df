"""Where a DuckLake is."""

import os
from pathlib import Path

import pytest

from embed_assets.errors import SettingsError
from embed_assets.lake_address import LakeAddress, lake_address
from embed_assets.settings import Settings


@pytest.mark.parametrize(
    ("text", "catalog", "data"),
    [
        (
            "ducklake:postgres:host=db dbname=lake?data=s3://bucket/a/",
            "host=db dbname=lake",
            "s3://bucket/a",
        ),
        (
            "ducklake:postgres:postgresql://me@db/lake?sslmode=require?data=/mnt/lake",
            "postgresql://me@db/lake?sslmode=require",
            "/mnt/lake",
        ),
    ],
)
def test_an_address_names_a_catalogue_and_a_place_of_files(text, catalog, data):
    address = lake_address(text, "S")
    assert address == LakeAddress(catalog, data)
    assert lake_address(str(address), "S") == address
    assert address.folder == (None if data.startswith("s3") else Path(data))


def test_a_relative_folder_is_that_of_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = Settings(warehouse="ducklake:postgres:dbname=x?data=lake")
    assert settings.warehouse == f"ducklake:postgres:dbname=x?data={os.getcwd()}/lake"
    assert settings.changed({}).warehouse == settings.warehouse


@pytest.mark.parametrize(
    "text",
    [
        "warehouse.duckdb",
        "ducklake:sqlite:x?data=/y",
        "ducklake:postgres:dbname=x",
        "ducklake:postgres:?data=/y",
        "ducklake:postgres:dbname=x?data=",
        "ducklake:postgres:dbname=x?data=gs://bucket",
        "ducklake:postgres:dbname=x?data=s3://",
    ],
)
def test_what_is_no_address_is_refused_by_the_name_of_its_setting(text):
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_WAREHOUSE: "):
        Settings(warehouse=text)


@pytest.mark.parametrize(
    "catalog",
    [
        "host=db sslpassword=hunter2",
        "host=db password=hunter2",
        "postgresql://me:hunter2@db/x",
        "host=db PASSWORD = 'hunter2'",
    ],
)
def test_a_password_is_refused_without_being_said(catalog):
    with pytest.raises(SettingsError, match="PGPASSWORD") as refused:
        Settings(warehouse=f"ducklake:postgres:{catalog}?data=/x")
    assert "hunter2" not in str(refused.value)
