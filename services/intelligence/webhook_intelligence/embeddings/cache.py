"""Vectors in Redis, so that a text is paid for once.

A failing cache never fails a call and never holds one up for long: it costs a provider call.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import islice

import numpy as np
from webhook_shared.coalesce import Coalescer
from webhook_shared.redis import Client, RedisError

from webhook_intelligence import metrics
from webhook_intelligence.keyspace import Keyspace, digest
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel, unit

# The version of `embeddings.prepare`: another way to prepare a text makes other vectors.
NORMALIZER = "2"
FORMAT = 2
_HEADER = struct.Struct("<BBHH")  # format, truncated, pieces, dimension
_MOST_PIECES = 2**16 - 1
KEYS = Keyspace("emb")
PATIENCE_S = 0.25
# Callers that look at the same time share a round trip: so many of them, for so many keys.
MOST_LOOKS = 512
MOST_KEYS = 4096
LOOKS_AT_ONCE = 4
# Entries made together shall not expire together.
JITTER = 0.1


class EmbeddingCache:
    """Key: a digest of all that makes the vector. Value: format, flags, dimension, float16 numbers.

    The time to live counts from when a vector was made; a hit does not lengthen it.
    """

    def __init__(
        self, client: Client, model: EmbeddingModel, keep: timedelta, *, shared: bool = False
    ) -> None:
        """Keep the vectors of a model.

        Args:
            client: Where.
            model: Whose vectors.
            keep: How long; nothing is kept for 0.
            shared: Whether tenants share vectors. How fast an answer comes then tells one tenant what another
                has asked before.
        """
        self._client = client
        self._model = model
        self._shared = shared
        self._keep_ms = int(keep.total_seconds() * 1000)
        self._looks = Coalescer[Sequence[str], list[Embedding | None]](
            self._look,
            max_items=MOST_LOOKS,
            in_flight=LOOKS_AT_ONCE,
            max_weight=MOST_KEYS,
            weigh=len,
            joins_at=0.5,
        )
        self._is_looking = False

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._keep_ms > 0

    def key(self, tenant: str, text: str) -> str:
        """Equal only where tenant, text, provider, model, revision, dimension and normaliser all are.

        It begins with a digest of the tenant alone, so that all that a tenant has can be found and dropped.
        """
        model = self._model
        whose = "" if self._shared else tenant
        content = digest(
            model.provider,
            model.name,
            model.revision,
            str(model.dimension),
            NORMALIZER,
            "shared" if self._shared else "tenant",
            whose,
            text,
        )
        return KEYS.key(whose, content)

    async def find(self, keys: Sequence[str]) -> list[Embedding | None]:
        """What is known for each key, in order."""
        if not self._keep_ms or not keys:
            return [None] * len(keys)
        if self._is_looking:
            return await self._looks.submit(keys)
        # Whoever is alone goes at once.
        self._is_looking = True
        try:
            (found,) = await self._look([keys])
        finally:
            self._is_looking = False
        return found

    async def _look(self, asked: list[Sequence[str]]) -> list[list[Embedding | None]]:
        """What several callers look for, in one round trip."""
        flat = [key for keys in asked for key in keys]
        try:
            async with asyncio.timeout(PATIENCE_S):
                values = await self._client.mget(flat)
        except (RedisError, OSError):
            metrics.CACHE_FAILURES.inc()
            values = [None] * len(flat)
        found = iter([self._decode(value) for value in values])
        return [list(islice(found, len(keys))) for keys in asked]

    async def keep(self, made: Mapping[str, Embedding]) -> None:
        """Remember vectors."""
        if not self._keep_ms or not made:
            return
        try:
            async with asyncio.timeout(PATIENCE_S), self._client.pipeline(transaction=False) as pipeline:
                for key, embedding in made.items():
                    keep_ms = int(self._keep_ms * random.uniform(1 - JITTER, 1))  # noqa: S311  # spreads load
                    pipeline.set(key, _encode(embedding), px=max(1, keep_ms))
                await pipeline.execute()
        except (RedisError, OSError):
            metrics.CACHE_FAILURES.inc()

    def _decode(self, value: bytes | str | None) -> Embedding | None:
        dimension = self._model.dimension
        if not isinstance(value, bytes) or len(value) != _HEADER.size + 2 * dimension:
            return None
        kind, truncated, pieces, stored = _HEADER.unpack_from(value)
        if kind != FORMAT or stored != dimension:
            return None
        vector = np.frombuffer(value, np.float16, offset=_HEADER.size).astype(np.float32)
        return Embedding(unit(vector), truncated=bool(truncated), pieces=pieces)


def _encode(embedding: Embedding) -> bytes:
    pieces = min(embedding.pieces, _MOST_PIECES)
    header = _HEADER.pack(FORMAT, embedding.truncated, pieces, len(embedding.vector))
    return header + embedding.vector.astype(np.float16).tobytes()
