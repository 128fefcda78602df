"""Verifies a bundle: nothing was changed, added or lost since it was written, and who wrote it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.errors import SettingsError, one_line
from embed_assets.training.bundle.bill import hashes_in_bill, wrong_in_bill
from embed_assets.training.bundle.files import BILL, PROVENANCE, digests, oddities, of_model
from embed_assets.training.bundle.provenance import read_statement
from embed_assets.training.bundle.signing import (
    PAYLOAD_TYPE,
    is_signed_by,
    read_envelope,
    read_public_key,
)
from embed_assets.wording import counted, in_lines

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope


def verify_bundle(folder: Path, key: Path | None) -> dict[str, Any]:
    """What `lineage --verify DIR --json` prints. key: PEM file of the signer's public key.

    keyid: of the key that the signature was checked by. claimed_keyids: of those that the envelope
    names, which anybody may write.

    With a key, only what it has signed is valid. SettingsError if there is no folder or no key.
    """
    if not folder.is_dir():
        raise SettingsError(f"{folder} is no folder.", "--verify")
    public = read_public_key(key) if key else None
    files = digests(folder)
    problems = [f"{name}: {what}" for name, what in oddities(folder).items()]
    envelope, promised = None, None
    try:
        payload, envelope = _opened(folder / PROVENANCE)
        promised = read_statement(payload)
    except Exception as error:  # whatever stands there: somebody else wrote it
        problems.append(f"{PROVENANCE}: {one_line(str(error)) or type(error).__name__}")
    if promised is not None:
        problems += _differences(files, promised)
        problems += _differences_of_bill(folder / BILL, files, promised)
    if public and envelope is None:
        problems.append(f"{PROVENANCE}: it is not signed")
    elif public and envelope and not is_signed_by(envelope, public):
        problems.append(f"{PROVENANCE}: it bears no valid signature of this key")
    return {
        "valid": not problems,
        "files": len(files),
        "signed": envelope is not None,
        "keyid": public.keyid if public else None,
        "claimed_keyids": sorted(filter(None, envelope.signatures)) if envelope else [],
        "signature_checked": public is not None,
        "problems": problems,
    }


def verification_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    if not summary["valid"]:
        return in_lines(["The bundle is not valid.", *(f"- {p}." for p in summary["problems"])])
    files = counted(summary["files"], "file")
    whole = f"The bundle is whole, {files}, and as it was when it was written"
    if not summary["signed"]:
        return f"{whole}. It is unsigned: this shows damage, not forgery."
    if not summary["signature_checked"]:
        keys = ", ".join(summary["claimed_keyids"])
        by = f"by key {keys}" if keys else "by a key that it does not name"
        return (
            f"{whole}. It claims to be signed {by}, which was not checked: --key PUBLIC.pem "
            "does it."
        )
    return f"{whole}, and signed by key {summary['keyid']}."


def _opened(file: Path) -> "tuple[bytes, Envelope | None]":
    """The statement, and its envelope if it is signed. ValueError where there is neither.

    An envelope without signatures is what anybody can write.
    """
    if not file.is_file():
        raise ValueError("it is missing")
    content = file.read_bytes()
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    if "payloadType" not in document:
        return content, None
    envelope = read_envelope(document)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ValueError(f"its payload is {envelope.payload_type}, not {PAYLOAD_TYPE}")
    return envelope.payload, envelope if envelope.signatures else None


def _differences(files: Mapping[str, str], promised: Mapping[str, str]) -> list[str]:
    """How the files differ from those that the statement is about. Both: sha256 by path."""
    return [
        *(f"{name}: missing" for name in sorted(promised.keys() - files.keys())),
        *(f"{name}: not in {PROVENANCE}" for name in sorted(files.keys() - promised.keys())),
        *(
            f"{name}: changed"
            for name in sorted(files.keys() & promised.keys())
            if files[name] != promised[name]
        ),
    ]


def _differences_of_bill(
    bill: Path, files: Mapping[str, str], promised: Mapping[str, str]
) -> list[str]:
    """What of the bill of materials is wrong, or other than in the statement.

    Of one that was changed, nothing more: it is not the one that was promised. files, promised:
    sha256 by path.
    """
    if BILL not in promised:
        return [f"{PROVENANCE}: it says nothing of {BILL}"]
    if files.get(BILL) != promised[BILL]:
        return []  # missing or changed, which is said already
    text = bill.read_text(encoding="utf-8", errors="replace")
    if wrong := wrong_in_bill(text):
        return [f"{BILL}: {one_line(wrong)}"]
    listed, stated = hashes_in_bill(text), of_model(promised)
    return [
        f"{BILL}: its hash of {name} is not that of {PROVENANCE}"
        for name in sorted(listed.keys() | stated.keys())
        if listed.get(name) != stated.get(name)
    ]
