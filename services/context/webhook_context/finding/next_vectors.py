"""Vectors of the next embedding model, beside those of the one that serves, until it serves itself.

They lie in the hash of their context, sealed, so that they go with it when it is moved, deleted or erased.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webhook.context.v1.context_pb2 import Enrichment
from webhook_shared.redis import Client, Script
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError

from webhook_context.domain.contexts import Context
from webhook_context.finding.documents import Model
from webhook_context.store import keys
from webhook_context.store.records import Records

_FIELD = "next_vector"


@dataclass(frozen=True, slots=True, eq=False)
class NextVector:
    """A vector of the next model.

    Attributes:
        of: Digest of what it was made from.
    """

    model: Model
    of: str
    vector: NDArray[np.float32]


class NextVectors:
    """All of them. Every method raises REDIS_TROUBLE where Redis can't be reached."""

    def __init__(self, client: Client, keyring: Keyring) -> None:
        self._client = client
        self._keyring = keyring
        self._records = Records(keyring)
        self._put, self._settle = (
            Script.load("webhook_context", name) for name in ("vector_put", "vector_settle")
        )

    async def find(self, tenant: str, context_ids: Sequence[str]) -> dict[str, NextVector]:
        """Of these contexts those that have one; one that can't be opened is as good as none."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in context_ids:
                pipeline.hget(keys.context(tenant, context_id), _FIELD)
            sealed: Any = await pipeline.execute()
        found = {}
        for context_id, one in zip(context_ids, sealed, strict=True):
            if one is None:
                continue
            await self._keyring.prepare([tenant])
            try:
                found[context_id] = _read(self._keyring.open(tenant, one, _FIELD, context_id))
            except (EnvelopeError, ValueError, KeyError):
                continue
        return found

    async def put(self, tenant: str, made: Mapping[str, NextVector]) -> dict[str, int]:
        """Keep them; the versions of the contexts that are still there."""
        await self._keyring.prepare([tenant])
        calls = [
            (
                [keys.context(tenant, context_id)],
                [self._keyring.seal(tenant, _written(one), _FIELD, context_id, fresh=True)],
            )
            for context_id, one in made.items()
        ]
        versions = await self._put.batch(self._client, calls)
        for version in versions:
            if isinstance(version, Exception):
                raise version
        return {one: version for one, version in zip(made, versions, strict=True) if version}

    async def drop(self, tenant: str, context_id: str) -> None:
        """Forget one."""
        await self._put(self._client, [keys.context(tenant, context_id)], [""])

    async def settle(self, context: Context, coming: NextVector) -> bool:
        """Put a vector into the place of the old one; False where the context has changed since."""
        assert context.enrichment is not None
        await self._keyring.prepare([context.tenant])
        enrichment = Enrichment()
        enrichment.CopyFrom(context.enrichment)
        del enrichment.vector[:]
        enrichment.vector.extend(coming.vector.tolist())
        enrichment.embedding_model.provider = coming.model.provider
        enrichment.embedding_model.name = coming.model.name
        enrichment.embedding_model.dimension = coming.model.dimension
        where = (context.tenant, context.context_id)
        sealed, vector = self._records.seal_enrichment(*where, enrichment)
        assert vector is not None
        args = [context.version, sealed, vector]
        return bool(await self._settle(self._client, [keys.context(*where)], args))


def digest(title: str, summary: str) -> str:
    """Of what the vector of a context is made from."""
    return hashlib.blake2b(f"{len(title)}:{title}{summary}".encode(), digest_size=16).hexdigest()


def _written(one: NextVector) -> bytes:
    head = json.dumps([*one.model, one.of], ensure_ascii=True).encode()
    return head + b"\n" + one.vector.astype("<f2").tobytes()


def _read(content: bytes) -> NextVector:
    head, _, numbers = content.partition(b"\n")
    provider, name, dimension, of = json.loads(head)
    vector = np.frombuffer(numbers, dtype="<f2").astype(np.float32)
    if len(vector) != dimension:
        raise ValueError("another dimension than said")
    return NextVector(Model(provider, name, dimension), of, vector)
