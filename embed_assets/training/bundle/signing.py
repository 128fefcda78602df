"""Signatures by a key in a PEM file: DSSE envelopes.

https://github.com/secure-systems-lab/dsse
"""
# The library exports its classes in another way than the type checker knows.
# pyright: reportPrivateImportUsage=false

from pathlib import Path
from typing import TYPE_CHECKING, Any

from embed_assets.errors import SettingsError, one_line
from embed_assets.settings import SIGNING_KEY

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"


def read_signer(file: Path) -> "CryptoSigner":
    """The signer of a private key: Ed25519, ECDSA or RSA. SettingsError if it can't be read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    try:
        return CryptoSigner(load_pem_private_key(file.read_bytes(), None))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}.", SIGNING_KEY) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{file} is no private key in PEM that can be used ({one_line(str(error), 120)}). Set "
            "it to an Ed25519, ECDSA or RSA key without a password.",
            SIGNING_KEY,
        ) from error


def read_public_key(file: Path) -> "SSlibKey":
    """The key that a signature is checked by. SettingsError if it can't be read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(file.read_bytes()))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}.", "--key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            f"{file} is no public key in PEM. `openssl pkey -in PRIVATE.pem -pubout` writes one.",
            "--key",
        ) from error


def signed(payload: bytes, signer: "CryptoSigner") -> dict[str, Any]:
    """The envelope of a statement, as JSON has it."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return envelope.to_dict()


def read_envelope(document: dict[str, Any]) -> "Envelope":
    """An envelope as JSON has it. ValueError where it is none."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import FormatError

    try:
        return Envelope.from_dict(document)
    except (KeyError, TypeError, AttributeError, FormatError) as error:
        raise ValueError(f"it is no DSSE envelope ({error!r})") from error


def is_signed_by(envelope: "Envelope", key: "SSlibKey") -> bool:
    """Whether an envelope bears a valid signature of this key."""
    from securesystemslib.exceptions import VerificationError

    if envelope.payload_type != PAYLOAD_TYPE:
        return False
    try:
        envelope.verify([key], 1)
    except (VerificationError, ValueError, TypeError):  # none, or nothing that is a signature
        return False
    return True
