"""The client that all services use: the commands of redis-py, on one server, behind Sentinels, on a Cluster.

Which of the three it is, the server says itself, at the first command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.client import Pipeline as RedisPipeline
from redis.client import EMPTY_RESPONSE, NEVER_DECODE

from webhook_shared.redis.cluster import Cluster, Follow, key_of
from webhook_shared.redis.connection import Address, Command, Pool, exchange
from webhook_shared.redis.errors import REDIS_TROUBLE, RedisError, ResponseError, settled

# One command about several keys is, on a Cluster, a command per key; and what becomes of their replies.
_SPREAD: dict[str, tuple[str, Callable[[list[Any]], Any]]] = {
    "MGET": ("GET", list),
    "DEL": ("DEL", sum),
    "UNLINK": ("UNLINK", sum),
    "EXISTS": ("EXISTS", sum),
    "TOUCH": ("TOUCH", sum),
}


def _first(replies: list[Any]) -> Any:
    return replies[0]


def _concatenated(replies: list[Any]) -> Any:
    return [row for reply in replies for row in reply]


def _fullest(replies: list[Any]) -> Any:
    return max(replies, key=_used_share)


def _used_share(told: bytes) -> float:
    facts = dict(line.split(b":", 1) for line in told.splitlines() if b":" in line)
    used, most = int(facts.get(b"used_memory", 0)), int(facts.get(b"maxmemory", 0))
    return used / most if most else used / 2**64


# Without keys, on a Cluster: what all masters are told, and what is made of their replies. INFO gives the
# words of the one that is fullest.
_EVERYWHERE: dict[str, Callable[[list[Any]], Any]] = {
    "CONFIG RESETSTAT": _first,
    "CONFIG SET": _first,
    "DBSIZE": sum,
    "FLUSHALL": _first,
    "FLUSHDB": _first,
    "INFO": _fullest,
    "KEYS": _concatenated,
    "PING": _first,
    "SCRIPT EXISTS": _first,
    "SCRIPT FLUSH": _first,
    "SCRIPT LOAD": _first,
}


class WrongForm(RedisError, RuntimeError):
    """The addresses and what listens there contradict each other."""


class Client(redis.Redis):
    """Commands of redis-py with bytes replies.

    On a Cluster each goes where its keys are; the keys of one script share a slot, those of MGET, DEL,
    UNLINK and EXISTS need not.

    Args:
        pool: To the server, to the first of several, or to the master that the Sentinels name.
        cluster: What there is if the server says that it is part of a Cluster; None behind Sentinels.
        seeds: All servers that are named.
        timeout_s: How long a reply may take.
    """

    def __init__(
        self, pool: Pool, cluster: Cluster | None, seeds: Sequence[Address], timeout_s: float
    ) -> None:
        super().__init__(connection_pool=pool)
        self._cluster = cluster
        self._seeds = seeds
        self._timeout_s = timeout_s
        self._is_cluster = False if cluster is None else None
        self._finding_out = asyncio.Lock()

    async def as_cluster(self) -> Cluster | None:
        """The Cluster that the server is part of; None where it stands alone or behind Sentinels.

        Raises:
            WrongForm: It is a Sentinel, or one of several servers that are no Cluster.
            REDIS_TROUBLE: Nobody answers.
        """
        if self._is_cluster is None:
            async with self._finding_out:
                if self._is_cluster is None:
                    self._is_cluster = await self._found_out()
        return self._cluster if self._is_cluster else None

    async def form(self) -> str:
        """What it speaks to: "single", "sentinel" or "cluster".

        Raises:
            As `as_cluster`.
        """
        if self._cluster is None:
            return "sentinel"
        return "cluster" if await self.as_cluster() else "single"

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As of redis-py."""
        cluster = None if self._is_cluster is False else await self.as_cluster()
        if cluster is None:
            try:
                return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's
            except ResponseError as error:
                raise settled(error) from None
        return self.parsed(await _over(cluster, args), args[0], options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> RedisPipeline:
        """As of redis-py; on a Cluster a transaction is one per slot."""
        return _Pipeline(self, transaction, shard_hint)

    async def run(
        self, commands: Sequence[Command], follow: Follow | None = None, *, timeout_s: float | None = None
    ) -> tuple[list[Any], list[list[Any]]]:
        """Send commands and read their replies: one round trip per server, no transaction around them.

        Args:
            commands: With keys of one slot each.
            follow: What follows on each connection, by the first key of a command that it carried.
            timeout_s: How long the replies of one server may take; as long as any by default.

        Returns:
            A reply per command, in order, and those to what followed, per connection; an error stands as an
            exception in its place.

        Raises:
            REDIS_TROUBLE: The connection is lost; which of them ran is not known. Where only some of a
                Cluster's are, that stands in the places of their commands.
        """
        cluster = None if self._is_cluster is False else await self.as_cluster()
        if cluster is not None:
            replies, after = await cluster.send(commands, follow, timeout_s=timeout_s)
            if replies and all(map(_is_unheard, replies)):
                raise replies[0]
            return replies, after
        more = follow(key_of(commands[0])) if follow and commands else ()
        found = await exchange(self.connection_pool, [*commands, *more], timeout_s or self._timeout_s)
        return found[: len(commands)], [found[len(commands) :]] if more else []

    async def at(self, key: str, *command: Any) -> Any:
        """The plain reply to a command without keys from the server that has a key."""
        cluster = await self.as_cluster()
        if cluster is None:
            (reply,) = await exchange(self.connection_pool, [command], self._timeout_s)
        else:
            (reply,) = await cluster.at(await cluster.owner(key), [command])
        return _unless_error(reply)

    async def at_each(self, *command: Any) -> dict[str, Any]:
        """The plain replies to a command without keys from every master, by address; errors are replies."""
        cluster = await self.as_cluster()
        if cluster is None:
            (reply,) = await exchange(self.connection_pool, [command], self._timeout_s)
            return {",".join(map(str, self._seeds)): reply}
        masters = await cluster.masters()
        replies = await asyncio.gather(*(cluster.at(master, [command]) for master in masters))
        return {str(master): reply for master, (reply,) in zip(masters, replies, strict=True)}

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections."""
        await super().aclose(close_connection_pool)
        await self.connection_pool.aclose()
        if self._cluster is not None:
            await self._cluster.close()

    def parsed(self, reply: Any, name: Any, options: Mapping[str, Any]) -> Any:
        """A reply as the methods of redis-py give it.

        Raises:
            RedisError: It is one.
        """
        if isinstance(reply, ResponseError) and EMPTY_RESPONSE in options:
            return options[EMPTY_RESPONSE]
        _unless_error(reply)
        callback = self.response_callbacks.get(name)
        kept = {key: value for key, value in options.items() if key not in _OF_THE_LIBRARY}
        return callback(reply, **kept) if callback else reply

    async def _found_out(self) -> bool:
        trouble: BaseException | None = None
        for address in self._seeds:
            try:
                told = await self._server_facts(address)
            except REDIS_TROUBLE as error:
                trouble = error
                continue
            mode = told.get("server_mode") or told.get("redis_mode", "")
            if mode == "sentinel":
                raise WrongForm(f"redis: {address} is a Sentinel: set redis.sentinel_enabled")
            if mode != "cluster" and len(self._seeds) > 1:
                raise WrongForm(
                    f"redis: {address} is one of several redis.addresses and no part of a Cluster: name one "
                    "server, or set redis.sentinel_enabled where the addresses are those of Sentinels"
                )
            return mode == "cluster"
        assert trouble is not None
        raise trouble

    async def _server_facts(self, address: Address) -> dict[str, str]:
        assert self._cluster is not None
        pool = self.connection_pool if address == self._seeds[0] else self._cluster.pool(address)
        (reply,) = await exchange(pool, [("INFO", "server")], self._timeout_s)
        if isinstance(reply, Exception):
            # We may not ask: then what the addresses look like decides.
            return {"server_mode": "cluster" if len(self._seeds) > 1 else "standalone"}
        return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)


_OF_THE_LIBRARY = frozenset((NEVER_DECODE, EMPTY_RESPONSE, "keys"))


class _Pipeline(RedisPipeline):
    def __init__(self, client: Client, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        cluster = await self._client.as_cluster()
        if cluster is None:
            try:
                return await super().execute(raise_on_error)
            except ResponseError as error:
                raise settled(error) from None
        stack, self.command_stack = self.command_stack, []
        commands = [args for args, _ in stack]
        together = self.is_transaction or self.explicit_transaction
        replies = await cluster.transact(commands) if together else (await cluster.send(commands))[0]
        return [
            self._client.parsed(reply, args[0], options)
            if raise_on_error or not isinstance(reply, Exception)
            else reply
            for reply, (args, options) in zip(replies, stack, strict=True)
        ]


async def _over(cluster: Cluster, args: Command) -> Any:
    name = args[0]
    if name == "SCAN":
        raise ResponseError("SCAN goes through one server; a Cluster has several")
    if name in _EVERYWHERE:
        masters = await cluster.masters()
        found = await asyncio.gather(*(cluster.at(master, [args]) for master in masters))
        return _EVERYWHERE[name]([_unless_error(reply) for (reply,) in found])
    if name in _SPREAD and len(args) > 2:
        single, combined = _SPREAD[name]
        replies, _ = await cluster.send([(single, key) for key in args[1:]])
        return combined([_unless_error(reply) for reply in replies])
    (reply,), _ = await cluster.send([args])
    return reply


def _is_unheard(reply: Any) -> bool:
    return isinstance(reply, Exception) and not isinstance(reply, ResponseError)


def _unless_error(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply
