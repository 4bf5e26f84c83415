"""A Cluster: which server has which slot, and commands sent to where their keys are.

Own code rather than redis-py's cluster client, for what a queue needs and that one lacks: a command whose
fate is unknown is never sent twice, ASKING goes out on the connection of the command that it is for, a full
pool waits instead of failing, one node's trouble closes no other node's connections, and every failure is
one of those that the loops of all services back off from (docs/adr/0006-any-redis.md).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from webhook_shared.redis.backoff import Backoff
from webhook_shared.redis.connection import CONNECT_TIMEOUT_S, Address, Command, Pool, exchange
from webhook_shared.redis.errors import REDIS_TROUBLE, RedisError

SLOTS = 16_384
# How long a command follows a slot that moves before its caller hears of it.
FOLLOW_S = 2.0
# Every client of a Cluster that changes asks for its map; no oftener than this.
MAP_AT_MOST_EVERY_S = 0.1

_KEYLESS = frozenset(
    (
        *("ACL", "BGREWRITEAOF", "BGSAVE", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO"),
        *("FLUSHALL", "FLUSHDB", "HELLO", "INFO", "KEYS", "LASTSAVE", "LATENCY", "PING", "ROLE", "SCAN"),
        *("SCRIPT", "SLOWLOG", "TIME", "WAIT", "WAITAOF"),
    )
)
_FAILURES: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)
# None of these ran.
_UNSETTLED = (MovedError, AskError, TryAgainError, ClusterDownError)

Follow = Callable[[Any], Sequence[Command]]
"""What follows on a connection, by the first key of a command that it carried."""


def key_of(command: Command) -> Any:
    """A command's first key; None where it has none."""
    name = command[0] if isinstance(command[0], str) else command[0].decode()
    family = name.partition(" ")[0].upper()
    if family in _KEYLESS:
        return None
    if family in ("EVAL", "EVALSHA"):
        return command[3] if int(command[2]) else None
    if family in ("XREAD", "XREADGROUP"):
        return command[1 + next(i for i, word in enumerate(command) if word in ("STREAMS", b"STREAMS"))]
    return command[1]


def slot_of(command: Command) -> int | None:
    """The slot of a command's first key; None where it has none."""
    key = key_of(command)
    if key is None:
        return None
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


class Cluster:
    """The servers of one Cluster.

    Args:
        seeds: Where to ask for its map while no other server is known.
        make_pool: Gives the connections to one server.
        timeout_s: How long the replies of one round trip may take.
    """

    def __init__(
        self, seeds: Sequence[Address], make_pool: Callable[[Address], Pool], timeout_s: float
    ) -> None:
        self._seeds = seeds
        self._make_pool = make_pool
        self._timeout_s = timeout_s
        self._pools: dict[Address, Pool] = {}
        self._owners: list[Address | None] = [None] * SLOTS
        self._masters: tuple[Address, ...] = ()
        self._outdated = True
        self._mapped_at_s = float("-inf")
        self._mapping = asyncio.Lock()

    def pool(self, address: Address) -> Pool:
        """The connections to one server."""
        found = self._pools.get(address)
        if found is None:
            found = self._pools[address] = self._make_pool(address)
        return found

    async def masters(self) -> tuple[Address, ...]:
        """All servers that have slots.

        Raises:
            REDIS_TROUBLE: None answers.
        """
        await self._map()
        return self._masters

    async def owner(self, key: str) -> Address:
        """The server that has a key.

        Raises:
            REDIS_TROUBLE: None answers, or none has it.
        """
        await self._map()
        found = self._owners[slot_of(("GET", key)) or 0]
        if found is None:
            self._outdated = True
            raise ClusterDownError("no server has the slot")
        return found

    async def close(self) -> None:
        """Close all connections."""
        pools, self._pools = list(self._pools.values()), {}
        await asyncio.gather(*(pool.aclose() for pool in pools))

    async def at(
        self, address: Address, commands: Sequence[Command], timeout_s: float | None = None
    ) -> list[Any]:
        """Run commands at one server, in one round trip; a failure stands as an exception in its place."""
        try:
            return await exchange(self.pool(address), commands, timeout_s or self._timeout_s)
        except _FAILURES as error:
            self._outdated = True
            return [error] * len(commands)

    async def send(
        self, commands: Sequence[Command], follow: Follow | None = None, *, timeout_s: float | None = None
    ) -> tuple[list[Any], list[list[Any]]]:
        """Run commands where their keys are: one round trip per server, side by side.

        Redirections are followed for FOLLOW_S; a command whose fate is unknown is not repeated.

        Args:
            commands: With keys of one slot each; one without keys goes anywhere.
            follow: What follows on each connection, if anything.
            timeout_s: Instead of that of all round trips.

        Returns:
            A reply per command, in order, and those to what followed, per connection. A failure stands as an
            exception in its place, that of a connection too.
        """
        slots = [slot_of(command) for command in commands]
        replies: list[Any] = [None] * len(commands)
        after: list[list[Any]] = []
        asks: dict[int, Address] = {}
        waiting: Sequence[int] = range(len(commands))
        backoff = Backoff(base_s=0.01, cap_s=0.1)
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + FOLLOW_S
        while True:
            groups = await self._groups(waiting, slots, asks, replies)
            after += await self._round(groups, commands, replies, follow, timeout_s)
            waiting = [i for i in waiting if isinstance(replies[i], _UNSETTLED)]
            if not waiting:
                return replies, after
            if clock() >= give_up_s:
                for i in waiting:
                    replies[i] = TryAgainError("the slot is on its way to another server")
                return replies, after
            asks = self._redirected(waiting, slots, replies)
            if any(isinstance(replies[i], TryAgainError | ClusterDownError) for i in waiting):
                self._outdated = True
                await backoff.wait()

    async def transact(self, commands: Sequence[Command]) -> list[Any]:
        """Run the commands of each slot in a transaction; slots stand for themselves.

        While a slot is on its way to another server its commands run one by one.

        Returns:
            As `send`.
        """
        by_slot: dict[int | None, list[int]] = {}
        for i, command in enumerate(commands):
            by_slot.setdefault(slot_of(command), []).append(i)
        replies: list[Any] = [None] * len(commands)
        for slot, members in by_slot.items():
            found = await self._together(slot, [commands[i] for i in members])
            for i, reply in zip(members, found, strict=True):
                replies[i] = reply
        return replies

    async def _together(self, slot: int | None, commands: Sequence[Command]) -> Sequence[Any]:
        try:
            await self._map()
        except _FAILURES as error:
            return [error] * len(commands)
        owner = self._owners[slot] if slot is not None else self._masters[0]
        if owner is None:
            return (await self.send(commands))[0]
        found = await self.at(owner, [("MULTI",), *commands, ("EXEC",)])
        if isinstance(found[-1], list):
            return found[-1]
        if any(isinstance(reply, _UNSETTLED) for reply in found):
            # None of them ran. Whatever goes on with the slot, `send` knows the way.
            return (await self.send(commands))[0]
        refusal = next((reply for reply in found if isinstance(reply, Exception)), found[-1])
        return [refusal] * len(commands)

    async def _groups(
        self,
        waiting: Sequence[int],
        slots: Sequence[int | None],
        asks: Mapping[int, Address],
        replies: list[Any],
    ) -> dict[tuple[Address, bool], list[int]]:
        """Which of the commands go to which server, and whether with ASKING."""
        groups: dict[tuple[Address, bool], list[int]] = {}
        try:
            await self._map()
        except _FAILURES as error:
            for i in waiting:
                replies[i] = error
            return groups
        anywhere = random.choice(self._masters)  # noqa: S311  # spreads load; guards nothing
        for i in waiting:
            slot = slots[i]
            asked = asks.get(i)
            owner = asked or (anywhere if slot is None else self._owners[slot])
            if owner is None:
                replies[i] = ClusterDownError("no server has the slot")
            else:
                groups.setdefault((owner, asked is not None), []).append(i)
        return groups

    async def _round(
        self,
        groups: Mapping[tuple[Address, bool], Sequence[int]],
        commands: Sequence[Command],
        replies: list[Any],
        follow: Follow | None,
        timeout_s: float | None,
    ) -> list[list[Any]]:
        """Send each group its commands, note their replies, and return those to what followed."""
        after: list[list[Any]] = []

        async def run(place: tuple[Address, bool], members: Sequence[int]) -> None:
            address, asking = place
            step = 2 if asking else 1
            sent = [part for i in members for part in ([_ASKING] if asking else []) + [commands[i]]]
            more = follow(key_of(commands[members[0]])) if follow else ()
            found = await self.at(address, [*sent, *more], timeout_s)
            for i, reply in zip(members, found[step - 1 : len(sent) : step], strict=True):
                replies[i] = _placed(reply, address)
            if more and not all(isinstance(replies[i], _UNSETTLED) for i in members):
                after.append(found[len(sent) :])

        await asyncio.gather(*(run(place, members) for place, members in groups.items()))
        return after

    def _redirected(
        self, waiting: Sequence[int], slots: Sequence[int | None], replies: Sequence[Any]
    ) -> dict[int, Address]:
        """Learn from redirections; where to go just this once, by command."""
        asks: dict[int, Address] = {}
        for i in waiting:
            error, slot = replies[i], slots[i]
            if isinstance(error, MovedError):
                # Where one slot has gone others may have too.
                self._outdated = True
                if slot is not None:
                    self._owners[slot] = Address(error.host, int(error.port))
            elif isinstance(error, AskError):
                asks[i] = Address(error.host, int(error.port))
        return asks

    async def _map(self) -> None:
        if not self._outdated:
            return
        async with self._mapping:
            since_s = asyncio.get_running_loop().time() - self._mapped_at_s
            if self._outdated and (not self._masters or since_s >= MAP_AT_MOST_EVERY_S):
                await self._ask_for_map()

    async def _ask_for_map(self) -> None:
        known = random.sample(self._masters, len(self._masters))
        failure: BaseException = RedisConnectionError("no server of the Cluster answers")
        for address in dict.fromkeys((*known, *self._seeds)):
            try:
                (rows,) = await exchange(self.pool(address), [("CLUSTER SLOTS",)], CONNECT_TIMEOUT_S)
            except _FAILURES as error:
                failure = error
                continue
            if isinstance(rows, ResponseError) or not rows:
                failure = rows or ClusterDownError("no server has slots yet")
                continue
            await self._learn(address, rows)
            return
        raise failure

    async def _learn(self, asked: Address, rows: Sequence[Any]) -> None:
        owners: list[Address | None] = [None] * SLOTS
        masters: dict[Address, None] = {}
        members = set(self._seeds)
        for first, last, *nodes in rows:
            there = [_address(node, asked) for node in nodes]
            members.update(there)
            masters[there[0]] = None
            owners[first : last + 1] = [there[0]] * (last - first + 1)
        self._owners, self._masters = owners, tuple(masters)
        self._outdated = None in owners
        self._mapped_at_s = asyncio.get_running_loop().time()
        gone = [self._pools.pop(address) for address in set(self._pools) - members]
        await asyncio.gather(*(pool.aclose() for pool in gone), return_exceptions=True)


_ASKING = ("ASKING",)


def _placed(reply: Any, asked: Address) -> Any:
    """A redirection names no host where it is the one that was asked."""
    if isinstance(reply, AskError) and not reply.host:
        reply.host = asked.host
    return reply


def _address(node: Sequence[Any], asked: Address) -> Address:
    host = node[0].decode() if node[0] else ""
    return Address(host if host not in ("", "?") else asked.host, int(node[1]))
