"""Which embedding model serves whom: one for a tenant at a time, and perhaps the next one beside it.

A change of model fills a new index while the old one serves. So both models make vectors for a while, and
which of them serves is said per tenant in one place, so that all replicas switch together.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import structlog
from webhook_shared.errors import FailedPrecondition, Unavailable
from webhook_shared.redis import Client, RedisError

from webhook_intelligence.embeddings.single_flight import Embeddings
from webhook_intelligence.providers.protocol import EmbeddingModel

log = structlog.get_logger()

BELIEVED_S = 1.0
MOST_BELIEVED = 4096


class ModelsInUse:
    """The first model, and the next one where there is one."""

    def __init__(self, client: Client, first: Embeddings, following: Embeddings | None = None) -> None:
        """Serve with the first one, until a tenant is switched.

        Args:
            client: Has said which one serves whom.
            first: The one that is set.
            following: The one that is to come after it.
        """
        self._client = client
        self._first = first
        self._following = following
        self._believed: OrderedDict[str, tuple[float, Embeddings]] = OrderedDict()

    async def serving(self, tenant: str) -> Embeddings:
        """The one that serves a tenant. While Redis is away, the one that did last."""
        if self._following is None:
            return self._first
        until_s, last = self._believed.get(tenant, (0.0, self._first))
        if time.monotonic() < until_s:
            return last
        try:
            said = await self._client.get(_key(tenant))
        except (RedisError, OSError):
            return last
        found = self._following if said == _name(self._following.model).encode() else self._first
        self._believe(tenant, found)
        return found

    async def following(self, tenant: str) -> Embeddings | None:
        """The one that is to serve a tenant next; None where there is none, or it serves already."""
        return None if await self.serving(tenant) is self._following else self._following

    async def next(self, tenant: str) -> Embeddings:
        """As `following`.

        Raises:
            FailedPrecondition: NO_NEXT_MODEL.
        """
        found = await self.following(tenant)
        if found is None:
            raise FailedPrecondition(
                "NO_NEXT_MODEL", "no next embedding model: set webhook.ai.embedding.next.model"
            )
        return found

    async def switch(self, tenant: str, provider: str, name: str, dimension: int) -> Embeddings:
        """Let one of both serve a tenant from now on.

        Raises:
            FailedPrecondition: NO_SUCH_MODEL.
            Unavailable: MODELS_UNREACHABLE: it can't be written down now.
        """
        for one in (self._first, self._following):
            if one and (one.model.provider, one.model.name, one.model.dimension) == (
                provider,
                name,
                dimension,
            ):
                break
        else:
            raise FailedPrecondition("NO_SUCH_MODEL", "that is neither the model in use nor the next one")
        try:
            await self._client.set(_key(tenant), _name(one.model))
        except (RedisError, OSError):
            raise Unavailable("MODELS_UNREACHABLE", "which model serves can't be written now") from None
        self._believe(tenant, one)
        log.info("models.switched", provider=provider, model=name, dimension=dimension)
        return one

    def _believe(self, tenant: str, found: Embeddings) -> None:
        self._believed[tenant] = (time.monotonic() + BELIEVED_S, found)
        self._believed.move_to_end(tenant)
        if len(self._believed) > MOST_BELIEVED:
            self._believed.popitem(last=False)


def _key(tenant: str) -> str:
    return f"ai-embedding:{{{tenant}}}"


def _name(model: EmbeddingModel) -> str:
    return f"{model.provider}\n{model.name}\n{model.dimension}"
