"""A bundle holds a version and its proof; whatever is altered afterwards is found out."""

import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.bundle.bill import wrong_in_bill
from embed_assets.training.bundle.files import BILL, PROVENANCE, RECORD, REPORT
from embed_assets.training.bundle.provenance import read_statement
from embed_assets.training.bundle.verifying import verification_text, verify_bundle
from embed_assets.training.bundle.writing import bundle_text, whole, write_bundle
from embed_assets.training.kept import KEPT
from embed_assets.training.record import PAIRS
from embed_assets_tests.rows import filled, model

DOCUMENTS = [
    {"version": "3", "document_id": f"d{n}", "path": f"a/d{n}.pdf", "sha256": f"{n}" * 64}
    | {"questions": n}
    for n in (1, 2)
]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in os.environ:
        if name.startswith("EMBED_ASSETS_") or name == "MLFLOW_TRACKING_URI":
            monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path) -> Settings:
    """A home with version 3, whose model folder and report are small."""
    settings = Settings(home=tmp_path / "home", pdfs=tmp_path)
    folder = settings.models / "v3"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "1_Pooling" / "config.json").write_text("{}")
    versions = {"pytorch": "2.13.0+cpu", "sentence_transformers": "6.2.0"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"__version__": versions}))
    pl.DataFrame({"chunk_id": ["c1", "c2"]}).write_parquet(folder / PAIRS)
    (folder / KEPT).mkdir()
    (folder / KEPT / "config.json").write_text(json.dumps({"folder": str(folder)}))
    settings.reports.mkdir()
    settings.report("3").write_text("<p>better</p>")
    row = model(
        "3",
        base="some-base",
        base_identity="beef",
        base_revision="1.2",
        path="models/v3",
        pairs=f"models/v3/{PAIRS}",
        settings=json.dumps({"set": {}, "used": {"epochs": 2, "base": str(tmp_path / "m")}}),
        code="embed-assets 0.1.0",
        machine="a machine",
        identity="cafe",
        dagster_run_id="a-run",
        mlflow_run_id="m-run",
        seconds=60.0,
        energy_wh=1.5,
    )
    scores = {"run_id": "m-run", "model": "tuned", "split": "test_labelled", "metric": "ndcg"}
    with Warehouse.of(settings).transaction() as transaction:
        transaction.replace("models", row)
        transaction.replace("model_documents", filled("model_documents", DOCUMENTS))
        figures = filled("evaluation_results", [{**scores, "dimension": 32, "k": 10, "score": 0.5}])
        transaction.replace("evaluation_results", figures)
    return settings


@pytest.fixture
def keys(tmp_path) -> Path:
    """A folder with the key pair of a signer, and of somebody else."""
    for name in ("mine", "other"):
        write_keys(tmp_path / name, ed25519.Ed25519PrivateKey.generate())
    return tmp_path


def write_keys(stem: Path, private: Any) -> None:
    stem.with_suffix(".pem").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    stem.with_suffix(".pub").write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


@pytest.fixture
def unsigned(settings, tmp_path) -> Path:
    write_bundle(settings, "3", tmp_path / "unsigned")
    return tmp_path / "unsigned"


@pytest.fixture
def signed(settings, tmp_path, keys) -> Path:
    write_bundle(settings.changed({"signing_key": keys / "mine.pem"}), "3", tmp_path / "signed")
    return tmp_path / "signed"


def statement_of(bundle: Path) -> dict[str, Any]:
    document = json.loads((bundle / PROVENANCE).read_bytes())
    payload = document.get("payload")
    return json.loads(base64.b64decode(payload)) if payload else document


def test_a_bundle_holds_the_model_its_record_its_report_and_its_proof(settings, unsigned):
    model_files = {
        path
        for p in (settings.models / "v3").rglob("*")
        if KEPT not in (path := p.relative_to(settings.models / "v3")).parts
    }
    assert {
        p.relative_to(unsigned / "model") for p in (unsigned / "model").rglob("*")
    } == model_files
    assert {p.name for p in unsigned.iterdir()} == {"model", RECORD, REPORT, BILL, PROVENANCE}
    assert (unsigned / REPORT).read_text() == "<p>better</p>"
    record = json.loads((unsigned / RECORD).read_text())
    assert (record["version"], record["questions"], record["chunks"]) == ("3", 3, ["c1", "c2"])
    assert record["pairs"] == f"model/{PAIRS}"


def test_a_bundle_names_files_and_models_of_this_machine_without_their_folders(settings, tmp_path):
    used = {"base": "~/models/m", "labelled": f"a.jsonl:{tmp_path}/b.jsonl"}
    row = model("3", base=str(tmp_path / "m"), path="models/v3", identity="cafe")
    known = json.dumps({"set": used, "used": used})
    with Warehouse.of(settings).transaction() as transaction:
        transaction.replace("models", row.with_columns(settings=pl.lit(known)))
    write_bundle(settings, "3", tmp_path / "bundle")
    record = json.loads((tmp_path / "bundle" / RECORD).read_text())
    assert record["base"] == "m"
    for settings in (record["settings"], record["settings_set"]):
        assert settings == {"base": "m", "labelled": "a.jsonl:b.jsonl"}
    for file in (RECORD, BILL, PROVENANCE):
        assert str(tmp_path) not in (tmp_path / "bundle" / file).read_text()


def test_the_bill_of_materials_lists_files_documents_base_and_libraries(unsigned):
    text = (unsigned / BILL).read_text()
    assert wrong_in_bill(text) is None
    bill = json.loads(text)
    subject = bill["metadata"]["component"]
    assert (subject["type"], subject["name"], subject["version"]) == (
        "machine-learning-model",
        "embed-assets",
        "3",
    )
    assert {part["name"] for part in subject["components"]} == {
        f"model/{name}"
        for name in (
            *("model.safetensors", "config_sentence_transformers.json", PAIRS),
            "1_Pooling/config.json",
        )
    }
    parts = {part["name"]: part for part in bill["components"]}
    assert parts["a/d1.pdf"]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert parts["some-base"]["version"] == "1.2"
    assert parts["torch"]["purl"] == "pkg:pypi/torch@2.13.0%2Bcpu"
    [depends] = [row for row in bill["dependencies"] if row["ref"] == "model"]
    assert set(depends["dependsOn"]) == {part["bom-ref"] for part in bill["components"]}
    card = subject["modelCard"]
    assert card["quantitativeAnalysis"]["performanceMetrics"] == [
        {"slice": "test_labelled", "type": "dim_32_cosine_ndcg@10", "value": "0.5"}
    ]


def test_the_provenance_says_what_a_version_was_made_from_and_in_which_run(unsigned):
    statement = statement_of(unsigned)
    assert read_statement(json.dumps(statement).encode())
    build, run = (statement["predicate"][name] for name in ("buildDefinition", "runDetails"))
    assert build["externalParameters"]["settings"]["epochs"] == 2
    made_from = {each["name"]: each for each in build["resolvedDependencies"]}
    assert made_from["a/d2.pdf"]["digest"] == {"sha256": "2" * 64}
    assert made_from["some-base"]["annotations"] == {"identity": "beef", "revision": "1.2"}
    assert f"model/{PAIRS}" in made_from
    assert run["metadata"]["invocationId"] == "a-run"
    assert run["byproducts"][0]["uri"] == "runs:/m-run"
    times = [datetime.fromisoformat(run["metadata"][name]) for name in ("startedOn", "finishedOn")]
    assert (times[1] - times[0]).seconds == 60


def test_every_file_of_a_bundle_is_a_subject_of_its_provenance(unsigned):
    subjects = {subject["name"] for subject in statement_of(unsigned)["subject"]}
    files = {p.relative_to(unsigned).as_posix() for p in unsigned.rglob("*") if p.is_file()}
    assert files == subjects | {PROVENANCE}


def test_an_untouched_bundle_is_valid(unsigned):
    assert verify_bundle(unsigned, None) == {
        "valid": True,
        "files": 7,
        "signed": False,
        "keyid": None,
        "claimed_keyids": [],
        "signature_checked": False,
        "problems": [],
    }


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model/model.safetensors", f"model/{PAIRS}", RECORD, REPORT])
def test_one_changed_bit_is_named(unsigned, name):
    flip_a_bit(unsigned / name)
    result = verify_bundle(unsigned, None)
    assert (result["valid"], result["problems"]) == (False, [f"{name}: changed"])


def test_a_missing_file_is_named(unsigned):
    (unsigned / "model/1_Pooling/config.json").unlink()
    assert verify_bundle(unsigned, None)["problems"] == ["model/1_Pooling/config.json: missing"]


def test_an_additional_file_is_named(unsigned):
    (unsigned / "model/extra.py").write_text("import os")
    assert verify_bundle(unsigned, None)["problems"] == [f"model/extra.py: not in {PROVENANCE}"]


def test_a_link_is_named_even_where_it_leads_to_the_same_bytes(tmp_path, unsigned):
    file = unsigned / "model/model.safetensors"
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    (unsigned / "model/more").symlink_to(tmp_path)
    problems = verify_bundle(unsigned, None)["problems"]
    assert [problem.partition(":")[0] for problem in problems] == [
        "model/model.safetensors",
        "model/more",
    ]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # longer names are not allowed


@pytest.mark.parametrize("make", [make_pipe, make_socket])
def test_what_is_neither_a_file_nor_a_folder_is_named(unsigned, monkeypatch, make: Callable):
    monkeypatch.chdir(unsigned)
    make(unsigned / "model/extra")
    problems = verify_bundle(unsigned, None)["problems"]
    assert problems == ["model/extra: neither a file nor a folder"]


def promise(bundle: Path, name: str) -> None:
    """Have the provenance state a file as it is now."""
    statement = statement_of(bundle)
    [subject] = [each for each in statement["subject"] if each["name"] == name]
    subject["digest"]["sha256"] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
    (bundle / PROVENANCE).write_text(json.dumps(statement))


def test_a_bill_of_materials_with_other_hashes_than_the_provenance_is_found_out(unsigned):
    bill = json.loads((unsigned / BILL).read_text())
    [weights] = [
        part
        for part in bill["metadata"]["component"]["components"]
        if part["name"] == "model/model.safetensors"
    ]
    weights["hashes"][0]["content"] = "0" * 64
    (unsigned / BILL).write_text(json.dumps(bill))
    assert verify_bundle(unsigned, None)["problems"] == [f"{BILL}: changed"]
    promise(unsigned, BILL)
    assert verify_bundle(unsigned, None)["problems"] == [
        f"{BILL}: its hash of model/model.safetensors is not that of {PROVENANCE}",
    ]


def test_a_bill_of_materials_that_does_not_fit_its_schema_is_found_out(unsigned):
    bill = json.loads((unsigned / BILL).read_text())
    del bill["metadata"]["component"]["name"]
    (unsigned / BILL).write_text(json.dumps(bill))
    promise(unsigned, BILL)
    assert any(
        "'name' is a required property" in p for p in verify_bundle(unsigned, None)["problems"]
    )


GARBAGE = (
    *("", "no json", "[]", "{}", "null", "1", '"text"', "[" * 100_000, "\0", '[["a"]]'),
    '{"metadata": []}',
    '{"bomFormat": "CycloneDX", "specVersion": "1.6"}',
    '{"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {}}',
    '{"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": "m"}}',
)


@pytest.mark.parametrize("content", GARBAGE)
def test_whatever_stands_for_the_bill_of_materials_is_a_problem_and_no_crash(unsigned, content):
    (unsigned / BILL).write_text(content)
    assert verify_bundle(unsigned, None)["problems"] == [f"{BILL}: changed"]
    promise(unsigned, BILL)
    assert not verify_bundle(unsigned, None)["valid"]


def without_subjects(statement: dict[str, Any]) -> None:
    statement["subject"] = []


def of_another_predicate(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://example.org/other"


def with_unknown_fields(statement: dict[str, Any]) -> None:
    statement["predicate"]["buildDefinition"]["unheardOf"] = 1


def of_another_type(statement: dict[str, Any]) -> None:
    statement["_type"] = "https://in-toto.io/Statement/v0.1"


@pytest.mark.parametrize(
    "alter", [without_subjects, of_another_predicate, with_unknown_fields, of_another_type]
)
def test_a_provenance_that_is_not_valid_is_found_out(unsigned, alter: Callable):
    statement = statement_of(unsigned)
    alter(statement)
    (unsigned / PROVENANCE).write_text(json.dumps(statement))
    [problem] = verify_bundle(unsigned, None)["problems"]
    assert problem.startswith(PROVENANCE)


@pytest.mark.parametrize(
    "content",
    [
        *GARBAGE,
        '{"payloadType": 1}',
        '{"payloadType": "x", "payload": "!"}',
        '{"payloadType": "application/vnd.in-toto+json", "payload": "W10=", "signatures": [1]}',
        '{"payloadType": "application/vnd.in-toto+json", "payload": "W10=", "signatures": "s"}',
        '{"_type": "https://in-toto.io/Statement/v1", "subject": [1], "predicateType": []}',
    ],
)
def test_a_provenance_that_is_something_else_is_found_out(unsigned, keys, content):
    (unsigned / PROVENANCE).write_text(content)
    assert not verify_bundle(unsigned, None)["valid"]
    assert not verify_bundle(unsigned, keys / "mine.pub")["valid"]


def test_a_bundle_without_its_provenance_is_not_valid(unsigned):
    (unsigned / PROVENANCE).unlink()
    assert verify_bundle(unsigned, None)["problems"] == [f"{PROVENANCE}: it is missing"]


@pytest.mark.parametrize(
    "make",
    [
        ed25519.Ed25519PrivateKey.generate,
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
    ],
    ids=["ed25519", "p256", "p384", "rsa"],
)
def test_keys_of_three_kinds_sign(settings, tmp_path, make: Callable):
    write_keys(tmp_path / "key", make())
    signing = settings.changed({"signing_key": tmp_path / "key.pem"})
    assert write_bundle(signing, None, tmp_path / "bundle")["signed"]
    result = verify_bundle(tmp_path / "bundle", tmp_path / "key.pub")
    assert (result["valid"], result["signature_checked"]) == (True, True)


def test_the_signature_of_another_key_is_not_valid(signed, keys):
    assert verify_bundle(signed, keys / "other.pub")["problems"] == [
        f"{PROVENANCE}: it bears no valid signature of this key"
    ]


def test_an_unsigned_bundle_is_not_valid_for_somebody_with_a_key(unsigned, keys):
    assert verify_bundle(unsigned, keys / "mine.pub")["problems"] == [
        f"{PROVENANCE}: it is not signed"
    ]


def test_an_envelope_without_signatures_is_unsigned(signed, keys):
    envelope = json.loads((signed / PROVENANCE).read_text())
    (signed / PROVENANCE).write_text(json.dumps(envelope | {"signatures": []}))
    unchecked = verify_bundle(signed, None)
    assert (unchecked["valid"], unchecked["signed"]) == (True, False)
    assert "It is unsigned" in verification_text(unchecked)
    checked = verify_bundle(signed, keys / "mine.pub")
    assert checked["problems"] == [f"{PROVENANCE}: it is not signed"]


@pytest.mark.parametrize("keyid", ["", None])
def test_a_key_that_an_envelope_does_not_name_is_not_named(signed, keyid):
    envelope = json.loads((signed / PROVENANCE).read_text())
    envelope["signatures"].append({"keyid": keyid, "sig": "AAAA"})
    del envelope["signatures"][0]
    (signed / PROVENANCE).write_text(json.dumps(envelope))
    assert "by a key that it does not name" in verification_text(verify_bundle(signed, None))


def test_who_signed_is_said_by_the_key_and_who_claims_to_have_by_the_envelope(signed, keys):
    """Anybody may put another signature first."""
    envelope = json.loads((signed / PROVENANCE).read_text())
    mine = envelope["signatures"][0]["keyid"]
    envelope["signatures"].insert(0, {"keyid": "somebody", "sig": "AAAA"})
    (signed / PROVENANCE).write_text(json.dumps(envelope))
    checked, unchecked = verify_bundle(signed, keys / "mine.pub"), verify_bundle(signed, None)
    assert (checked["valid"], checked["keyid"]) == (True, mine)
    assert verification_text(checked).endswith(f"signed by key {mine}.")
    assert (unchecked["keyid"], set(unchecked["claimed_keyids"])) == (None, {mine, "somebody"})
    assert "claims to be signed by key" in verification_text(unchecked)


def test_a_forged_statement_passes_without_the_key_and_fails_with_it(signed, keys):
    (signed / RECORD).write_text("{}")
    statement = statement_of(signed)
    [subject] = [each for each in statement["subject"] if each["name"] == RECORD]
    subject["digest"]["sha256"] = hashlib.sha256(b"{}").hexdigest()
    envelope = json.loads((signed / PROVENANCE).read_text())
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (signed / PROVENANCE).write_text(json.dumps(envelope))
    unchecked = verify_bundle(signed, None)
    assert (unchecked["valid"], unchecked["signature_checked"]) == (True, False)
    assert "was not checked" in verification_text(unchecked)
    assert not verify_bundle(signed, keys / "mine.pub")["valid"]


def test_a_signature_of_another_payload_type_is_not_valid(signed, keys):
    envelope = json.loads((signed / PROVENANCE).read_text())
    envelope["payloadType"] = "application/json"
    (signed / PROVENANCE).write_text(json.dumps(envelope))
    assert not verify_bundle(signed, keys / "mine.pub")["valid"]


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_signing_key_that_cannot_be_read_is_said_in_one_line_and_writes_nothing(
    settings, tmp_path, content
):
    if content is not None:
        (tmp_path / "key.pem").write_bytes(content)
    signing = settings.changed({"signing_key": tmp_path / "key.pem"})
    with pytest.raises(SettingsError, match=r"^EMBED_ASSETS_SIGNING_KEY: .*key\.pem") as raised:
        write_bundle(signing, "3", tmp_path / "bundle")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "bundle").exists()


def test_a_private_key_with_a_password_is_said_in_one_line(settings, tmp_path):
    (tmp_path / "key.pem").write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    signing = settings.changed({"signing_key": tmp_path / "key.pem"})
    with pytest.raises(SettingsError, match="without a password"):
        write_bundle(signing, "3", tmp_path / "bundle")


def test_a_private_key_is_no_key_to_verify_by(signed, keys):
    with pytest.raises(SettingsError, match=r"^--key: .*no public key"):
        verify_bundle(signed, keys / "mine.pem")


def test_a_folder_that_is_not_empty_is_left_as_it_is(settings, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "letter.txt").write_text("mine")
    with pytest.raises(SettingsError, match="isn't an empty folder"):
        write_bundle(settings, "3", tmp_path / "bundle")
    assert [p.name for p in (tmp_path / "bundle").iterdir()] == ["letter.txt"]


def test_an_empty_folder_is_filled_and_parents_are_made(settings, tmp_path):
    (tmp_path / "bundle").mkdir()
    write_bundle(settings, "3", tmp_path / "bundle")
    write_bundle(settings, "3", tmp_path / "a" / "b")
    assert verify_bundle(tmp_path / "bundle", None)["valid"]
    assert verify_bundle(tmp_path / "a" / "b", None)["valid"]


def test_a_bundle_in_the_home_is_refused_since_forgetting_would_miss_it(settings):
    with pytest.raises(SettingsError, match="lies in the home"):
        write_bundle(settings, "3", settings.home / "bundle")


def test_a_bundle_that_comes_into_the_home_through_a_link_is_refused(settings, tmp_path):
    (tmp_path / "link").symlink_to(settings.home)
    with pytest.raises(SettingsError, match="lies in the home"):
        write_bundle(settings, "3", tmp_path / "link" / "bundle")


@pytest.mark.parametrize("target", ["folder", "nowhere"])
def test_a_link_does_not_become_a_bundle(settings, tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(SettingsError, match=r"^--bundle: .*/link is a link\. Give the folder"):
        write_bundle(settings, "3", tmp_path / "link")
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_a_killed_command_has_left_is_removed_by_the_next_and_nothing_else(settings, tmp_path):
    killed = (
        "import os, pathlib, signal, sys\n"
        "from embed_assets.training.bundle.writing import whole\n"
        "with whole(pathlib.Path(sys.argv[1])) as bundle:\n"
        "    (bundle / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    place = tmp_path / "v3"
    subprocess.run([sys.executable, "-c", killed, str(place)], check=False)
    assert len(list(tmp_path.glob(".v3-*/v3/weights"))) == 1
    (tmp_path / ".v3-of-a-person").mkdir()
    with whole(place) as written_now:
        write_bundle(settings, "3", place)
        assert written_now.is_dir()
        assert sorted(tmp_path.glob(".v3-*")) == sorted(
            [tmp_path / ".v3-of-a-person", written_now.parent]
        )
        shutil.rmtree(place)
    assert list(tmp_path.glob(".v3-*")) == [tmp_path / ".v3-of-a-person"]


def test_a_bundle_that_cannot_be_finished_leaves_nothing(settings, tmp_path):
    with Warehouse.of(settings).transaction() as transaction:
        wrong = [{**row, "sha256": "no digest"} for row in DOCUMENTS]
        transaction.replace("model_documents", filled("model_documents", wrong))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ProjectError, match="doesn't fit its schema"):
        write_bundle(settings, "3", tmp_path / "bundle")
    assert sorted(tmp_path.iterdir()) == before


def test_a_version_whose_folder_is_gone_has_no_bundle(settings, tmp_path):
    shutil.rmtree(settings.models)
    with pytest.raises(ProjectError, match="folder of version 3 is gone"):
        write_bundle(settings, "3", tmp_path / "bundle")


def test_a_version_of_an_older_release_has_a_bundle_too(settings, tmp_path):
    with Warehouse.of(settings).transaction() as transaction:
        transaction.replace("models", model("3", base="b", path="models/v3", identity="cafe"))
    shutil.rmtree(settings.reports)
    for name in (PAIRS, "config_sentence_transformers.json"):
        (settings.models / "v3" / name).unlink()
    write_bundle(settings, "3", tmp_path / "bundle")
    assert verify_bundle(tmp_path / "bundle", None)["valid"]


def test_a_person_reads_where_the_bundle_is_and_how_it_would_be_signed(settings, tmp_path):
    text = bundle_text(write_bundle(settings, "v3", tmp_path / "bundle"))
    assert str(tmp_path / "bundle") in text
    assert "unsigned" in text
    assert "EMBED_ASSETS_SIGNING_KEY" in text
