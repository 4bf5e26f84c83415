"""How safe an event is before its sender hears that it is: what a source may ask for beyond the stream.

A batch that holds an event that asks waits once, in the same round trip and on the same connection as the
batch itself: WAIT and WAITAOF speak of what their own connection has written before. A duplicate writes
nothing, and its wait would vouch for nothing; therefore a small write of our own goes in front.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import structlog
from webhook_shared.redis import Client, ResponseError

log = structlog.get_logger()

# In the slot of the stream, whose event it stands behind.
MARKER = "durability:{webhook-events}"
# Once replicas have not kept up, the next batches don't wait as long again; neither do their neighbours.
IMPATIENT_S = 0.05
# So old may what is known of the server be: it may be another one by now, or have been set otherwise.
KNOWN_FOR_S = 30.0


class Durability(IntEnum):
    """As `webhook.security.v1.Durability`."""

    FAST = 1
    REPLICATED = 2
    FSYNCED = 3


Commands = Mapping[Durability, Sequence[Any]]


class Assurance:
    """Has Redis say how safe a batch is.

    Args:
        redis: The server that holds the streams.
        replicas: How many of them `replicated` waits for.
        timeout_s: How long a batch waits.
    """

    def __init__(self, redis: Client, *, replicas: int, timeout_s: float) -> None:
        self._redis = redis
        self._replicas = replicas
        self._timeout_s = timeout_s
        self._replicas_are_late = False
        self._fsync = _Fsync(waits=False, always=False)
        self._asked_at_s = float("-inf")

    async def probe(self) -> None:
        """Find out what this server can say, and tell the log.

        Raises:
            REDIS_TROUBLE: It does not answer.
        """
        self._fsync = await _fsync_of(self._redis)
        self._asked_at_s = time.monotonic()
        log.info("durability.known", replicated=f"WAIT {self._replicas}", fsynced=str(self._fsync))

    async def commands(self, asked: Collection[int]) -> Commands:
        """What is to follow a batch whose events ask for this, `MARKER`'s write before it.

        Raises:
            REDIS_TROUBLE: The server does not answer.
        """
        found: dict[Durability, Sequence[Any]] = {}
        if Durability.REPLICATED in asked:
            patience_s = min(IMPATIENT_S, self._timeout_s) if self._replicas_are_late else self._timeout_s
            found[Durability.REPLICATED] = ("WAIT", self._replicas, _milliseconds(patience_s))
        if Durability.FSYNCED in asked:
            if time.monotonic() - self._asked_at_s > KNOWN_FOR_S:
                await self.probe()
                if not any(self._fsync):
                    log.error("durability.impossible", durability="fsynced", consequence="answered 503")
            if self._fsync.waits:
                found[Durability.FSYNCED] = ("WAITAOF", 1, 0, _milliseconds(self._timeout_s))
        return found

    def reached(self, asked: Collection[int], commands: Commands, replies: Sequence[object]) -> set[int]:
        """Which of what was asked for is so.

        Args:
            asked: By the events of the batch.
            commands: That followed it.
            replies: To them, in order.
        """
        told = dict(zip(commands, replies, strict=True))
        reached = set()
        if Durability.REPLICATED in asked:
            count = told[Durability.REPLICATED]
            self._replicas_are_late = not (isinstance(count, int) and count >= self._replicas)
            if not self._replicas_are_late:
                reached.add(int(Durability.REPLICATED))
        if Durability.FSYNCED in asked and self._is_fsynced(told.get(Durability.FSYNCED)):
            reached.add(int(Durability.FSYNCED))
        return reached

    def _is_fsynced(self, reply: object) -> bool:
        if isinstance(reply, list):
            return bool(reply) and isinstance(reply[0], int) and reply[0] >= 1
        return reply is None and self._fsync.always

    def forget(self) -> None:
        """Take nothing that is known of the server for granted: it was away, and may be another one."""
        self._asked_at_s = float("-inf")


class _Fsync(NamedTuple):
    """How a server can tell that a write is on its disk.

    Attributes:
        waits: It knows WAITAOF and keeps an append-only file.
        always: It answers nothing that it has not synced.
    """

    waits: bool
    always: bool

    def __str__(self) -> str:
        if self.waits:
            return "WAITAOF"
        if self.always:
            return "appendfsync always"
        return "impossible: needs Redis 7.2 or Valkey with appendonly yes, or appendfsync always"


async def _fsync_of(redis: Any) -> _Fsync:
    try:
        # In one word: as two, redis-py reads the reply, and stumbles over a command that is not there.
        found = await redis.execute_command("COMMAND INFO", "WAITAOF")
        told = {**await redis.config_get("appendonly"), **await redis.config_get("appendfsync")}
    except ResponseError:
        # We may not ask. WAITAOF itself will say whether it works here.
        return _Fsync(waits=True, always=False)
    has_waitaof = bool(found) and found[0] is not None
    settings = {_text(name): _text(value) for name, value in told.items()}
    appends = settings.get("appendonly") == "yes"
    return _Fsync(waits=has_waitaof and appends, always=appends and settings.get("appendfsync") == "always")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _milliseconds(seconds: float) -> int:
    # 0 would mean for ever.
    return max(1, round(seconds * 1000))
