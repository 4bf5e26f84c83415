"""What a registry of sources said last, kept for processes that start while it says nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog
from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError

from webhook_security.registry.definitions import Registered
from webhook_security.settings import DEFAULT_TENANT

log = structlog.get_logger()

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError, EnvelopeError, msgspec.DecodeError)


class Snapshot:
    """The last word of one registry, in Redis, sealed: secrets stand in it.

    Args:
        client: Where it is kept.
        keyring: Seals it.
        name: Of the registry.
    """

    def __init__(self, client: Client, keyring: Keyring, name: str) -> None:
        self._client = client
        self._keyring = keyring
        self._name = name

    async def keep(self, said: Registered) -> None:
        """Remember this instead of what was said before; while Redis is away it is not remembered."""
        try:
            await self._keyring.prepare([DEFAULT_TENANT])
            sealed = self._keyring.seal(
                DEFAULT_TENANT, msgspec.msgpack.encode(said), "registry", self._name, fresh=True
            )
            await self._client.set(self._key, sealed)
        except _TROUBLE as error:
            log.warning("registry.not_remembered", registry=self._name, error=type(error).__name__)

    async def recall(self) -> Registered | None:
        """What was said last, to whichever process; None where nothing is remembered, or can be read."""
        try:
            sealed: Any = await self._client.get(self._key)
            if sealed is None:
                return None
            await self._keyring.prepare([DEFAULT_TENANT])
            content = self._keyring.open(DEFAULT_TENANT, sealed, "registry", self._name)
            return msgspec.msgpack.decode(content, type=Registered)
        except _TROUBLE as error:
            log.warning("registry.not_recalled", registry=self._name, error=type(error).__name__)
            return None

    @property
    def _key(self) -> str:
        return f"registry:{{{self._name}}}"
