"""Certificates of erasures: signed, without content, to be verified by anybody who trusts the key.

A certificate is JSON: the statement, its signature (Ed25519 over the statement as canonical JSON: keys in
order, no white space, UTF-8) and the public key. What was asked for stands in it as a salted digest, so that
whoever knows it can check that the certificate is about it, and nobody else learns it by reading.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from webhook_context.erasing.tally import Count

FORMAT = "webhook erasure certificate 1"
ALGORITHM = "ed25519"
_SALT_BYTES = 16


class NotGenuine(Exception):
    """Not a certificate, not as it was signed, or signed by somebody else; the text says which."""


class Signer:
    """Signs certificates.

    Args:
        signing_key: A secret of at least 32 characters; where it is empty the other key stands in.
        key: That follows from the first master key.

    Raises:
        ValueError: The signing key is short.
    """

    def __init__(self, signing_key: SecretStr, key: bytes) -> None:
        own = signing_key.get_secret_value()
        if own and len(own) < 32:
            raise ValueError("WEBHOOK_ERASURE_SIGNING_KEY must be at least 32 random characters")
        secret = own.encode() or key
        seed = HKDF(SHA512(), 32, None, b"webhook erasure certificates 1").derive(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @property
    def public_key(self) -> bytes:
        """What verifies the signatures, 32 bytes."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def signed(
        self,
        *,
        erasure_id: str,
        scope: str,
        asked: Sequence[str],
        begin_ms: int,
        end_ms: int,
        counts: Sequence[Count],
        complete: bool,
    ) -> str:
        """A certificate.

        Args:
            erasure_id: Names the erasure.
            scope: "context", "subject" or "tenant".
            asked: The tenant, and what of it.
            begin_ms: When the erasure was first asked for, Unix milliseconds.
            end_ms: When its last run ended.
            counts: What became of it, place by place.
            complete: Whether every place was reached.
        """
        salt = secrets.token_bytes(_SALT_BYTES)
        statement = {
            "format": FORMAT,
            "erasure_id": erasure_id,
            "scope": scope,
            "asked_salt": salt.hex(),
            "asked_digest": _digest(salt, scope, asked),
            "begin_time": _moment(begin_ms),
            "end_time": _moment(end_ms),
            "places": [count._asdict() for count in counts],
            "complete": complete,
            "unreached": sorted(count.place for count in counts if not count.is_settled),
        }
        return json.dumps(
            {
                "statement": statement,
                "algorithm": ALGORITHM,
                "public_key": base64.b64encode(self.public_key).decode(),
                "signature": base64.b64encode(self._key.sign(_canonical(statement))).decode(),
            },
            ensure_ascii=False,
        )


def verified(certificate: str | bytes, public_key: bytes) -> dict[str, Any]:
    """The statement of a certificate that was signed with this key.

    Raises:
        NotGenuine: It was not.
    """
    try:
        read = json.loads(certificate)
        statement, signature = read["statement"], base64.b64decode(read["signature"], validate=True)
        claimed = base64.b64decode(read["public_key"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        raise NotGenuine("not a certificate") from None
    if read.get("algorithm") != ALGORITHM or not isinstance(statement, dict):
        raise NotGenuine("not a certificate of this format")
    if claimed != public_key:
        raise NotGenuine("signed with another key than the one that is trusted here")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _canonical(statement))
    except (InvalidSignature, ValueError):
        raise NotGenuine("the signature does not match: it was changed after it was signed") from None
    if statement.get("format") != FORMAT:
        raise NotGenuine("not a certificate of this format")
    return statement


def is_about(statement: dict[str, Any], scope: str, asked: Sequence[str]) -> bool:
    """Whether a statement is about this: the tenant, and what of it."""
    try:
        salt = bytes.fromhex(statement["asked_salt"])
    except (KeyError, ValueError, TypeError):
        return False
    return statement.get("scope") == scope and statement.get("asked_digest") == _digest(salt, scope, asked)


def _digest(salt: bytes, scope: str, asked: Sequence[str]) -> str:
    parts = [part.encode("utf-8", "surrogatepass") for part in (scope, *asked)]
    # Length-prefixed, so that no two requests are the same bytes.
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.sha256(salt + joined).hexdigest()


def _canonical(statement: dict[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def _moment(unix_ms: int) -> str:
    return (
        datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
