"""Answers of chat models in Redis, so that the same question is paid for once.

An entry is sealed under a key made of the question itself: who does not hold the text can't read what was
said of it, and no key has to be kept. A failing cache never fails a call.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from webhook_shared.redis import Client, RedisError

from webhook_intelligence import metrics
from webhook_intelligence.keyspace import Keyspace, digest

KEYS = Keyspace("sum")
PATIENCE_S = 0.25
_NONCE_BYTES = 12


class SummaryCache:
    """Question to answer. Nothing is kept where `keep` is 0."""

    def __init__(self, client: Client, keep: timedelta) -> None:
        self._client = client
        self._keep_ms = int(keep.total_seconds() * 1000)

    async def find(self, *question: str) -> str | None:
        """The answer, if it is known.

        Args:
            question: All that the answer depends on, the tenant first.
        """
        if not self._keep_ms:
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                value = await self._client.get(_name(question))
        except (RedisError, OSError):
            metrics.CACHE_FAILURES.inc()
            return None
        if not isinstance(value, bytes):
            return None
        try:
            opened = _cipher(question).decrypt(value[:_NONCE_BYTES], value[_NONCE_BYTES:], None)
            return opened.decode()
        except (InvalidTag, ValueError):
            return None

    async def keep(self, answer: str, *question: str) -> None:
        """Remember an answer; its time to live counts from now, and no hit lengthens it."""
        if not self._keep_ms:
            return
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + _cipher(question).encrypt(nonce, answer.encode("utf-8", "surrogatepass"), None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._client.set(_name(question), sealed, px=self._keep_ms)
        except (RedisError, OSError):
            metrics.CACHE_FAILURES.inc()


def _name(question: tuple[str, ...]) -> str:
    return KEYS.key(question[0], digest(*question, purpose=b"name"))


def _cipher(question: tuple[str, ...]) -> AESGCM:
    return AESGCM(digest(*question, purpose=b"key"))
