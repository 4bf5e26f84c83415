"""How full Redis is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from webhook_shared.redis import Client


@dataclass(frozen=True, slots=True)
class Fill:
    """What Redis uses and may use, bytes; a limit of 0 means that there is none."""

    used: int
    limit: int

    @property
    def ratio(self) -> float:
        """The share that is used; 0 without a limit."""
        return self.used / self.limit if self.limit else 0.0


class Memory:
    """Watches the memory of a server.

    Args:
        client: Of the server.
        limit_bytes: Instead of the server's own `maxmemory`; 0 for that.
        low_ratio: Below it there is no pressure any more.
    """

    def __init__(self, client: Client, *, limit_bytes: int, low_ratio: float) -> None:
        self._client = client
        self._limit_bytes = limit_bytes
        self._low_ratio = low_ratio

    async def fill(self) -> Fill:
        """How full it is now."""
        found: Any = await self._client.info("memory")
        # Buffers of its log and its replicas are not held against its limit.
        used = int(found["used_memory"]) - int(found.get("mem_not_counted_for_evict", 0))
        return Fill(used, self._limit_bytes or int(found.get("maxmemory", 0)))

    async def is_low(self) -> bool:
        """Whether it is below its low-water mark; always without a limit."""
        return (await self.fill()).ratio < self._low_ratio
