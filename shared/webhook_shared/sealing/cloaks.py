"""A key of its own for a piece of something larger, so that the piece alone can be made unreadable.

What is cloaked is sealed already; whoever destroys all copies of the key has destroyed the piece, wherever
its bytes still lie. Each key is made for one piece and cloaks nothing else, so its nonce need not vary.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
MORE_BYTES = 16
"""So much longer is what is cloaked."""
_NONCE = bytes(12)


def cloaked(content: bytes, binding: str) -> tuple[bytes, bytes]:
    """A new key, and what it makes of the content.

    Args:
        content: The piece.
        binding: What it belongs to; it opens only there.
    """
    key = os.urandom(KEY_BYTES)
    return key, AESGCM(key).encrypt(_NONCE, content, binding.encode())


def uncloaked(key: bytes, piece: bytes, binding: str) -> bytes | None:
    """The content; None where these are not the bytes, or not the key."""
    try:
        return AESGCM(key).decrypt(_NONCE, piece, binding.encode())
    except (InvalidTag, ValueError):
        return None
