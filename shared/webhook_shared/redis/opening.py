"""Opening a server that is to hold a queue: it is waited for, asked what it can, and looked over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from redis.exceptions import AuthenticationError

from webhook_shared.redis.backoff import Backoff
from webhook_shared.redis.capabilities import look, setting_at_each
from webhook_shared.redis.client import Client
from webhook_shared.redis.cluster import Cluster
from webhook_shared.redis.connection import Address, Pool, pool_of, reply_timeout_s
from webhook_shared.redis.errors import REDIS_TROUBLE
from webhook_shared.redis.sentinel import MasterPool
from webhook_shared.settings import RedisSection

log = structlog.get_logger()


def connect(settings: RedisSection, *, block_s: float = 0) -> Client:
    """A client with bytes replies; nothing is sent until its first command.

    Args:
        settings: Where and as whom. One address may be that of a single server or of any of a Cluster,
            several are those of a Cluster or of Sentinels.
        block_s: For a connection of its own for blocking reads: how long the longest blocks, seconds.
            No client ever repeats a command by itself.

    Raises:
        ValueError: An address is none.
    """
    addresses = [Address.parse(address) for address in settings.addresses]
    timeout_s = reply_timeout_s(block_s)
    if settings.sentinel_enabled:
        return Client(MasterPool(settings, addresses, block_s), None, addresses, timeout_s)

    def pool(address: Address) -> Pool:
        return pool_of(address, settings, block_s)

    return Client(pool(addresses[0]), Cluster(addresses, pool, timeout_s), addresses, timeout_s)


@asynccontextmanager
async def opened(settings: RedisSection) -> AsyncIterator[Client]:
    """A client whose server has answered and is fit to hold a queue; closed on leaving.

    Waits for a server that is not there yet, and says so.

    Raises:
        RuntimeError: See `guard`; or the password is refused, the server too old, or something else than
            the settings say.
        ValueError: An address is none.
    """
    client = connect(settings)
    try:
        await _answered(client, settings.addresses)
        await guard(client, allow_evicting=settings.allow_evicting_policy)
        yield client
    finally:
        await client.aclose()


async def ping(client: Client) -> None:
    """Raise one of REDIS_TROUBLE unless the server answers."""
    await client.ping()


async def guard(client: Client, *, allow_evicting: bool = False) -> None:
    """Look at every master: refuse what may silently throw the queue away, warn of what may lose some of it.

    Raises:
        RuntimeError: `maxmemory-policy` evicts keys that are not caches, or the server is too old.
        REDIS_TROUBLE: It does not answer.
    """
    server = await look(client)
    log.info(
        "redis.known",
        vendor=server.vendor,
        version=server.version,
        form=server.form,
        masters=server.masters,
        can=",".join(sorted(server.commands)),
    )
    if server.missing:
        lacks = ", ".join(sorted(server.missing))
        raise RuntimeError(f"redis: {server} lacks {lacks}; 6.2 is the oldest that is supported")
    if not server.settings_readable:
        log.warning(
            "redis.guard_skipped", why="CONFIG GET is not allowed here; check maxmemory-policy yourself"
        )
        return
    await _eviction(client, allowed=allow_evicting)
    await _losses(client, server.form)


async def _eviction(client: Client, *, allowed: bool) -> None:
    for address, policy in (await setting_at_each(client, "maxmemory-policy")).items():
        if policy.startswith("allkeys"):
            line = (
                f"redis {address}: maxmemory-policy is {policy}, which evicts queued events silently; "
                "set it to noeviction (CONFIG SET maxmemory-policy noeviction)"
            )
            if not allowed:
                raise RuntimeError(f"{line}, or set redis.allow_evicting_policy to start regardless")
            log.warning("redis.evicting", at=address, policy=policy)
        elif policy.startswith("volatile"):
            log.warning(
                "redis.evicting", at=address, policy=policy, consequence="when full, duplicates pass as new"
            )


async def _losses(client: Client, form: str) -> None:
    """What a server may lose by how it is set; each is a choice, so it starts."""
    for address, kept in (await setting_at_each(client, "appendonly")).items():
        if kept != "yes":
            log.warning(
                "redis.not_durable",
                at=address,
                setting="appendonly no",
                consequence="a restart loses what is queued",
                do="CONFIG SET appendonly yes",
            )
    if form == "sentinel":
        for address, least in (await setting_at_each(client, "min-replicas-to-write")).items():
            if least == "0":
                log.warning(
                    "redis.not_durable",
                    at=address,
                    setting="min-replicas-to-write 0",
                    consequence="a master that is cut off goes on accepting what its successor never sees",
                    do="CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 10",
                )
    if form == "cluster":
        for address, covered in (await setting_at_each(client, "cluster-require-full-coverage")).items():
            if covered == "yes":
                log.info(
                    "redis.all_or_nothing",
                    at=address,
                    setting="cluster-require-full-coverage yes",
                    consequence="while one shard has no master no event is accepted",
                )


async def _answered(client: Client, addresses: Sequence[str]) -> None:
    backoff = Backoff(base_s=0.1, cap_s=2.0)
    while True:
        try:
            await client.ping()
        except AuthenticationError:
            raise RuntimeError("redis: the password or user is refused; check REDIS_PASSWORD") from None
        except REDIS_TROUBLE as error:
            log.warning("redis.waiting", addresses=",".join(addresses), error=type(error).__name__)
            await backoff.wait()
        else:
            return
