"""Keys, tokens and passwords are taken out of whatever is shown, logged or kept."""

import base64
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from embed_assets.resources.explaining import said_in_the_ui
from embed_assets.resources.openai_server import OpenAIServer
from embed_assets.resources.tracking import Tracking
from embed_assets.secrets import HIDDEN, hide_in_logs, hide_secrets

SECRET = "s3cr3t+of/many signs"
IN_ADDRESS = "s3cr3t%2Bof%2Fmany%20signs"
VARIABLES = {
    "OPENAI_API_KEY": SECRET,
    "HF_TOKEN": SECRET,
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "EMBED_ASSETS_PDF_PASSWORDS": f"other,{SECRET}",
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {SECRET.replace(' ', '')},tenant=a",
    "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=me;AccountKey={SECRET}",
    "MLFLOW_TRACKING_URI": f"postgresql://me:{IN_ADDRESS}@host/db",
    "OPENAI_BASE_URL": f"http://me:{IN_ADDRESS}@host/v1",
    "OPENLINEAGE_URL": f"http://host?api_key={IN_ADDRESS}",
}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secrets of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_secret_is_hidden_however_it_is_written(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, VARIABLES[name])
    secret = SECRET.replace(" ", "") if name.endswith("HEADERS") else SECRET
    assert hide_secrets(f"refused: '{secret}' (401)") == f"refused: '{HIDDEN}' (401)"
    if "HEADERS" not in name:
        assert hide_secrets(f"GET /?key={IN_ADDRESS}") == f"GET /?key={HIDDEN}"


def test_a_secret_of_the_file_beside_is_hidden_too(tmp_path: Path):
    assert hide_secrets(SECRET) == SECRET
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY='{SECRET}'\n")
    assert hide_secrets(SECRET) == HIDDEN


@pytest.mark.parametrize(
    "variables",
    [
        {"MLFLOW_TRACKING_URI": "https://me:pass-word@host"},
        {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pass-word"},
    ],
)
def test_what_a_server_quotes_of_the_header_is_hidden(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    sent = base64.b64encode(b"me:pass-word").decode()
    assert hide_secrets(f"who is Basic {sent}?") == f"who is Basic {HIDDEN}?"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no answer from http://me:pw@host:80/x", "no answer from http://me:…@host:80/x"),
        ("'postgresql+psycopg://me:p@w@host/db'", "'postgresql+psycopg://me:…@host/db'"),
        ("http://:pw@host", "http://:…@host"),
        ("https://ghp_0123456789abcdef@host/x", f"https://{HIDDEN}@host/x"),
        ("ssh://somebody@host", "ssh://somebody@host"),
        ("http://host:80/a@b, mail me@host", "http://host:80/a@b, mail me@host"),
        ("at http://host:80 or me@there", "at http://host:80 or me@there"),
    ],
)
def test_an_address_is_shown_without_its_password_whosever_it_is(said: str, shown: str):
    assert hide_secrets(said) == shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", "EMPTY"),
        ("OPENAI_API_KEY", "ollama"),
        ("EMBED_ASSETS_SIGNING_KEY", "/no/such/file.pem"),
        ("GOOGLE_APPLICATION_CREDENTIALS", __file__),
        ("MLFLOW_TRACKING_URI", "http://["),
    ],
)
def test_what_is_no_secret_is_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    assert hide_secrets(f"EMPTY: {value}") == f"EMPTY: {value}"


def test_a_long_text_that_is_nearly_an_address_is_no_trap():
    near = "://a:" * 100_000 + "@" * 100_000
    assert hide_secrets(near).endswith(f"://a:{HIDDEN}@")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    factory = logging.getLogRecordFactory()
    hide_in_logs()
    hide_in_logs()  # once is enough
    yield caplog
    logging.setLogRecordFactory(factory)


def test_no_library_writes_a_secret_to_a_log(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    log = logging.getLogger("a.library")
    log.warning("refused: %s, %d", SECRET, 401)
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("went wrong")
    assert SECRET not in logged.text
    assert f"refused: {HIDDEN}, 401" in logged.text
    assert f"ValueError: {HIDDEN}" in logged.text


def test_a_line_that_cannot_be_written_stays_the_librarys_own_fault(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log = logging.getLogger("a.library")
    log.addHandler(logging.StreamHandler())
    log.propagate = False
    log.warning("done %d of", "x")
    assert SECRET not in logged.text


def test_dagster_keeps_no_secret_of_an_error(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", SECRET)

    @dg.asset
    @said_in_the_ui
    def broken(context: dg.AssetExecutionContext) -> None:
        context.log.info(f"asking with {SECRET}")
        try:
            raise ConnectionError(f"refused: {SECRET}")
        except ConnectionError as error:
            raise ValueError("no answer") from error

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([broken], instance=instance, raise_on_error=False)
        kept = "".join(dg.serialize_value(event) for event in instance.all_logs(result.run_id))
    assert "no answer" in kept
    assert f"asking with {json.dumps(HIDDEN)[1:-1]}" in kept
    assert SECRET not in kept + logged.text


def test_mlflow_knows_its_server_s_address_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{IN_ADDRESS}@host:8443/mlflow")
    assert Tracking(home=str(tmp_path)).uri == "https://host:8443/mlflow"

    from mlflow.utils.credentials import get_default_host_creds

    creds = get_default_host_creds("https://host:8443/mlflow")
    assert (creds.username, creds.password) == ("me", SECRET)


def test_a_server_s_password_is_no_part_of_what_is_kept_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:{IN_ADDRESS}@host/v1/")
    assert OpenAIServer().address == "http://host/v1"
