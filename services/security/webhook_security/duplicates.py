"""What makes two deliveries the same one."""

from __future__ import annotations

import hashlib
from binascii import b2a_base64

_DIGEST_BYTES = 18
"""144 bits: no two deliveries meet by chance, and a key in Redis stays short (24 characters)."""


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
    return b2a_base64(hashlib.sha256(joined.encode()).digest()[:_DIGEST_BYTES], newline=False).decode()
