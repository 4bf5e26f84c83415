"""How safe an event is before its sender hears that it is: what a source may ask for beyond the stream.

A batch that holds an event that asks waits once, in the same round trip and on the same connection as the
batch itself: WAIT and WAITAOF speak of what their own connection has written before. A duplicate writes
nothing, and its wait would vouch for nothing; therefore a small write of our own goes in front.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import IntEnum
from typing import Any

import structlog
from webhook_shared.redis import Client, Server, look

log = structlog.get_logger()

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


def marker(stream: str) -> str:
    """The key that is written behind the events of a stream, in its slot."""
    return f"durability:{{{stream}}}"


def marked(commands: Commands) -> Callable[[str], Sequence[Sequence[Any]]]:
    """These commands behind a write of our own, in the slot of the stream that a connection wrote to."""
    return lambda stream: (("SET", marker(stream), b"1"), *commands.values())


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
        self._server: Server | None = None
        self._asked_at_s = float("-inf")

    async def probe(self) -> Server:
        """Find out what this server can say, and tell the log.

        Raises:
            REDIS_TROUBLE: It does not answer.
        """
        self._server = await look(self._redis)
        self._asked_at_s = time.monotonic()
        log.info("durability.known", replicated=f"WAIT {self._replicas}", fsynced=_how(self._server))
        return self._server

    async def commands(self, asked: Collection[int]) -> Commands:
        """What is to follow a batch whose events ask for this, behind a `marker`.

        Raises:
            REDIS_TROUBLE: The server does not answer.
        """
        found: dict[Durability, Sequence[Any]] = {}
        if Durability.REPLICATED in asked:
            patience_s = min(IMPATIENT_S, self._timeout_s) if self._replicas_are_late else self._timeout_s
            found[Durability.REPLICATED] = ("WAIT", self._replicas, _milliseconds(patience_s))
        if Durability.FSYNCED in asked:
            server = await self._known_server()
            if server.waits_for_disk:
                found[Durability.FSYNCED] = ("WAITAOF", 1, 0, _milliseconds(self._timeout_s))
        return found

    async def _known_server(self) -> Server:
        if self._server is None or time.monotonic() - self._asked_at_s > KNOWN_FOR_S:
            self._server = await self.probe()
            if not (self._server.waits_for_disk or self._server.always_on_disk):
                log.error("durability.impossible", durability="fsynced", consequence="answered 503")
        return self._server

    def reached(
        self, asked: Collection[int], commands: Commands, told: Sequence[Sequence[object]]
    ) -> set[int]:
        """Which of what was asked for is so, at every server that took events of the batch.

        Args:
            asked: By the events of the batch.
            commands: That followed it.
            told: The replies to the marker and to them, per connection.
        """
        # Without commands it is known beforehand; with commands and no reply nothing is.
        replies = [told_by[1:] for told_by in told] if commands else [()]
        if not replies:
            return set()
        reached = set(asked).intersection(
            *(self._told(dict(zip(commands, each, strict=True))) for each in replies)
        )
        if Durability.REPLICATED in asked:
            self._replicas_are_late = Durability.REPLICATED not in reached
        return reached

    def _told(self, replies: Mapping[Durability, object]) -> set[int]:
        """What one server vouches for."""
        reached = set()
        count = replies.get(Durability.REPLICATED)
        if isinstance(count, int) and count >= self._replicas:
            reached.add(int(Durability.REPLICATED))
        synced = replies.get(Durability.FSYNCED)
        if _is_positive(synced) or (
            synced is None and self._server is not None and self._server.always_on_disk
        ):
            reached.add(int(Durability.FSYNCED))
        return reached

    def forget(self) -> None:
        """Take nothing that is known of the server for granted: it was away, and may be another one."""
        self._asked_at_s = float("-inf")


def _is_positive(reply: object) -> bool:
    """What WAITAOF says where this server's disk has it: [1, replicas]."""
    return isinstance(reply, list) and bool(reply) and isinstance(reply[0], int) and reply[0] >= 1


def _how(server: Server) -> str:
    if server.waits_for_disk:
        return "WAITAOF"
    if server.always_on_disk:
        return "appendfsync always"
    return "impossible: needs Redis 7.2 or Valkey with appendonly yes, or appendfsync always"


def _milliseconds(seconds: float) -> int:
    # 0 would mean for ever.
    return max(1, round(seconds * 1000))
