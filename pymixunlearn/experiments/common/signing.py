"""Signatures: an in-toto statement about a hash, in a DSSE envelope, signed with Ed25519.

The signatures, their envelope and their keys are those of securesystemslib; nothing is signed here by own code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymixunlearn.data.optional import require
from pymixunlearn.errors import UserError, reason_of
from pymixunlearn.files import atomic_path, canonical_json

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
DELETION, ENTRY, EXPORT = (f"urn:pymixunlearn:{kind}:v1" for kind in ("deletion-record", "ledger-entry", "export"))
"""What a statement is about: the record of a run, an entry of a ledger, an export of one."""
UNSIGNED = (
    "what no hash can show: there is no signature, so anyone who can write these files could have rewritten all "
    "of them consistently"
)
_REMEDY = "pip install 'pymixunlearn[requests]'"


def generate_keys(private: Path, public: Path) -> str:
    """Write a new pair of keys in PEM, the private one readable by its owner alone, and return its id.

    Raises:
        UserError: securesystemslib is missing, or a file is there already or cannot be written.
    """
    for path in (private, public):
        if path.exists():
            raise UserError(f"'{path}' exists already, and a key is not replaced; expected another name by --out")
    signer = _signer_module().CryptoSigner.generate_ed25519()
    serialization = require(
        "cryptography.hazmat.primitives.serialization", purpose="signing", remedy=f"install it: {_REMEDY}"
    )
    key = serialization.load_pem_private_key(signer.private_bytes, None).public_key()
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        for path, content, mode in ((private, signer.private_bytes, 0o600), (public, text, 0o644)):
            with atomic_path(path) as partial:
                partial.touch()
                os.chmod(partial, mode)
                partial.write_bytes(content)
    except OSError as error:
        raise UserError(f"'{private}' cannot be written: {error.strerror}") from error
    return str(signer.public_key.keyid)


class Signer:
    """A private key that statements are signed with.

    Args:
        path: The key, in PEM.

    Raises:
        UserError: securesystemslib is missing, or the file is no private key of Ed25519.
    """

    def __init__(self, path: Path) -> None:
        serialization = require(
            "cryptography.hazmat.primitives.serialization", purpose="signing", remedy=f"install it: {_REMEDY}"
        )
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            self._signer = _signer_module().CryptoSigner(key)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"'{path}' cannot be read as a private key: {reason_of(error)}") from error
        if self._signer.public_key.scheme != "ed25519":
            raise UserError(f"'{path}' is a key of {self._signer.public_key.scheme}; expected Ed25519")

    def sign(self, kind: str, name: str, sha256: str, about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the envelope of a signed statement, JSON-able.

        Args:
            kind: What it is about: :data:`DELETION`, :data:`ENTRY` or :data:`EXPORT`.
            name: The subject's name.
            sha256: The subject's hash.
            about: The predicate, JSON-able.
        """
        statement = {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": sha256}}],
            "predicateType": kind,
            "predicate": dict(about),
        }
        envelope = _envelope_class()(canonical_json(statement).encode(), PAYLOAD, {})
        envelope.sign(self._signer)
        return dict(envelope.to_dict())


class PublicKey:
    """A public key that signatures are checked with.

    Args:
        path: The key, in PEM.

    Raises:
        UserError: securesystemslib is missing, or the file is no public key.
    """

    def __init__(self, path: Path) -> None:
        serialization = require(
            "cryptography.hazmat.primitives.serialization",
            purpose="a signature",
            remedy=f"install it: {_REMEDY}",
        )
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
            self._key = _signer_module().SSlibKey.from_crypto(key)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"'{path}' cannot be read as a public key: {reason_of(error)}") from error

    def fault(self, content: Any, kind: str, sha256: str) -> str | None:
        """Say what is wrong with a signature, None where nothing is.

        Args:
            content: The envelope, as :meth:`Signer.sign` returned it; None where there is none.
            kind: What its statement is to be about.
            sha256: The hash that it is to be of.
        """
        from securesystemslib.exceptions import FormatError, VerificationError

        if content is None:
            return "it is not signed"
        try:
            envelope = _envelope_class().from_dict(json.loads(json.dumps(content)))
            envelope.verify([self._key], 1)
            statement = json.loads(envelope.payload)
            subjects = [subject["digest"]["sha256"] for subject in statement["subject"]]
            found = (envelope.payload_type, statement["_type"], statement["predicateType"])
        except VerificationError:
            return "the signature is not of this key, or what was signed was changed"
        except (FormatError, KeyError, TypeError, ValueError, AttributeError) as error:
            return f"the signature cannot be read ({type(error).__name__})"
        if found != (PAYLOAD, STATEMENT, kind):
            return "the signature is of something else"
        return None if subjects == [sha256] else "the signature is of another content"


def _signer_module() -> Any:
    return require("securesystemslib.signer", purpose="signing", remedy=f"install it: {_REMEDY}")


def _envelope_class() -> Any:
    return require("securesystemslib.dsse", purpose="signing", remedy=f"install it: {_REMEDY}").Envelope
