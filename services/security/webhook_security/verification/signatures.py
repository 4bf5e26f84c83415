"""The arithmetic behind signatures: who made them, and how they are written.

An HMAC is compared in the form in which it is written: what we compute is encoded, what was sent is never
decoded. So there is one spelling of each, and no decoder to confuse. An Ed25519 signature has to be decoded,
and is refused unless it is spelled as we would spell it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from webhook_security.verification.schemes import Scheme

Matches = Callable[[bytes, bytes, Sequence[bytes]], bytes]
"""Of some signatures (as written) of a message the one that a key (its bytes) made, or nothing."""

_ED25519_SIGNATURE_BYTES = 64
_KEYS_KNOWN = 1024


def matcher(scheme: Scheme) -> Matches:
    """What tells right signatures of a scheme from wrong ones; it never raises."""
    encode = encoder(scheme.encoding)
    return _ed25519(scheme.encoding) if scheme.kind == "ed25519" else _hmac(scheme.algorithm, encode)


def encoder(encoding: str) -> Callable[[bytes], bytes]:
    """How signatures are written: hex in lower case, base64 padded, base64url not."""
    if encoding == "hex":
        return binascii.hexlify
    return base64.b64encode if encoding == "base64" else _base64url


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _hmac(algorithm: str, encode: Callable[[bytes], bytes]) -> Matches:
    digest, same = hmac.digest, hmac.compare_digest

    def matches(key: bytes, message: bytes, candidates: Sequence[bytes]) -> bytes:
        expected = encode(digest(key, message, algorithm))
        for candidate in candidates:
            if same(expected, candidate):
                return expected
        return b""

    return matches


def _ed25519(encoding: str) -> Matches:
    encode = encoder(encoding)

    def matches(key: bytes, message: bytes, candidates: Sequence[bytes]) -> bytes:
        public = _public_key(key)
        for candidate in candidates:
            signature = _decode(candidate, encoding)
            if len(signature) != _ED25519_SIGNATURE_BYTES or encode(signature) != candidate:
                continue
            try:
                public.verify(signature, message)
            except InvalidSignature:
                continue
            return candidate
        return b""

    return matches


@lru_cache(maxsize=_KEYS_KNOWN)
def _public_key(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def _decode(text: bytes, encoding: str) -> bytes:
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        if encoding == "base64url":
            return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
