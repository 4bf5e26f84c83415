"""When each secret was last used, and how often, at all replicas together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError

from webhook_security import metrics

log = structlog.get_logger()

SAVE_S = 2.0
"""How often this replica's uses are added to the others', seconds."""

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class Use(NamedTuple):
    """The uses of one secret.

    Attributes:
        number: Deliveries that it verified.
        last: Unix seconds of the last one.
    """

    number: int
    last: float


NEVER = Use(0, 0.0)


class SecretUse:
    """Counts what one secret verifies at this replica.

    Args:
        tenant: Of the source.
        tool: Of the source.
        key_id: Of the secret.
        label: What metrics call the tool.
    """

    def __init__(self, tenant: str, tool: str, key_id: str, label: str) -> None:
        self.tenant, self.field = tenant, f"{tool}/{key_id}"
        self._labels = (tenant, label, key_id)
        self._counter = metrics.secret_uses.labels(*self._labels)
        self._count, self._last = 0, 0.0

    def inc(self, amount: float = 1) -> None:
        """It verified some deliveries just now."""
        self._count += int(amount)
        self._last = time.time()
        self._counter.inc(amount)
        # Made here: a secret that was never used has no last use, not one in 1970.
        metrics.secret_last_use.labels(*self._labels).set(self._last)

    def take(self) -> Use | None:
        """What has come since the last time; None where nothing has."""
        if not self._count:
            return None
        taken, self._count = Use(self._count, self._last), 0
        return taken

    def give_back(self, use: Use) -> None:
        """What was taken could not be saved."""
        self._count += use.number


class SecretUses:
    """The uses of all replicas: hash `secretuse:{<tenant>}`, two fields per secret.

    A count may be a little too high after Redis was away in the middle of a command; the metric is exact.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def of(self, tenant: str) -> Mapping[str, Use]:
        """What all replicas have saved, by `<tool>/<key id>`."""
        found: dict[Any, Any] = await self._client.hgetall(_key(tenant))
        stored = {name.decode(): value for name, value in found.items()}
        return {
            name.removeprefix("count "): Use(
                int(value), float(stored.get(f"last {name.removeprefix('count ')}", 0))
            )
            for name, value in stored.items()
            if name.startswith("count ")
        }

    async def save(self, uses: Iterable[SecretUse]) -> None:
        """Add what has come since the last time.

        Raises:
            REDIS_TROUBLE: It was not saved; the next time will do.
        """
        taken = [(use, new) for use in uses if (new := use.take())]
        if not taken:
            return
        try:
            async with self._client.pipeline(transaction=True) as pipeline:
                for use, new in taken:
                    pipeline.hincrby(_key(use.tenant), f"count {use.field}", new.number)
                    pipeline.hset(_key(use.tenant), f"last {use.field}", f"{new.last:.3f}")
                await pipeline.execute()
        except BaseException:
            for use, new in taken:
                use.give_back(new)
            raise

    async def keep(self, uses: Callable[[], Iterable[SecretUse]]) -> None:
        """Save again and again, for ever."""
        while True:
            await asyncio.sleep(SAVE_S)
            try:
                await self.save(uses())
            except _TROUBLE as error:
                log.debug("secret_uses.not_saved", error=type(error).__name__)


def _key(tenant: str) -> str:
    return f"secretuse:{{{tenant}}}"
