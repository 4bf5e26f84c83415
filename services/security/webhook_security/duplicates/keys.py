"""What makes two deliveries the same one."""

from __future__ import annotations

import hashlib
from binascii import b2a_base64

import xxhash

_DIGEST_BYTES = 18
"""144 bits: no two deliveries meet by chance, and a key in Redis stays short (24 characters)."""

_SHORT_BYTES = 5
"""40 bits tell two bodies of one id apart, and an event's record in Redis stays in one piece."""
_SHORT_CHARACTERS = 7


def body_digest(body: bytes) -> str:
    """The id of a delivery whose sender gives none."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def dedup_key(tenant: str, tool: str, scope: str, delivery_id: str) -> str:
    """An opaque name of one event for one route; printable, of one length, never empty.

    Args:
        tenant: From the route.
        tool: From the route.
        scope: What the id is unique within; may be empty.
        delivery_id: The sender's id, or a digest of the body.
    """
    # Length-prefixed, so that ("ab", "c") and ("a", "bc") differ.
    joined = f"{len(tenant)}:{tenant}{len(tool)}:{tool}{len(scope)}:{scope}{len(delivery_id)}:{delivery_id}"
    return _key(joined.encode())


class Signed:
    """Names what the senders of one route sign: a second key of an event, which no header can change.

    Args:
        tenant: Of the route.
        tool: Of the route.
    """

    def __init__(self, tenant: str, tool: str) -> None:
        self._route = f"signed{len(tenant)}:{tenant}{len(tool)}:{tool}".encode()

    def key(self, signature: bytes, event_type: str = "") -> str:
        """An opaque name, as `dedup_key`, and never one of its names.

        Args:
            signature: As we write it, so that one has one spelling.
            event_type: Where one body may be of several.
        """
        if event_type:
            signature = b"%b %b" % (signature, event_type.encode())
        return _key(self._route + signature)


def again_key(key: str, nonce: str) -> str:
    """The `dedup_key` of a delivery that an operator lets in whatever else came; one for each nonce."""
    return _key(f"again{key}{nonce}".encode())


def short_digest(body: bytes) -> str:
    """Tells the bodies of one id apart; printable, 7 characters."""
    # Not a cryptographic one: a sender that signs two bodies under one id has other ways to be misunderstood.
    return b2a_base64(xxhash.xxh3_64_digest(body)[:_SHORT_BYTES], newline=False)[:_SHORT_CHARACTERS].decode()


def _key(named: bytes) -> str:
    return b2a_base64(hashlib.sha256(named).digest()[:_DIGEST_BYTES], newline=False).decode()
