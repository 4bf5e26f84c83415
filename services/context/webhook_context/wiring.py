"""Puts one process of the context store together; the only place that opens resources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from webhook.context.v1.context_admin_service_pb2_grpc import add_ContextAdminServiceServicer_to_server
from webhook.context.v1.context_service_pb2_grpc import add_ContextServiceServicer_to_server
from webhook_shared import redis
from webhook_shared.identity import Authenticator, Certificates, Role
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client
from webhook_shared.server import Service, serving
from webhook_shared.tasks import ended

from webhook_context.admin_servicer import ContextAdminServicer
from webhook_context.appending import Appending
from webhook_context.changes import BLOCK_S, Changes
from webhook_context.cold import ColdStore
from webhook_context.cold_directory import DirectoryColdStore
from webhook_context.feeds import Feeds
from webhook_context.listing import Listing
from webhook_context.search import Search
from webhook_context.servicer import ContextServicer
from webhook_context.settings import ColdStorageSection, ContextSettings
from webhook_context.stats import Stats
from webhook_context.tiering import tiering
from webhook_context.updating import Updating


@dataclass(frozen=True)
class Running:
    """A context store that serves.

    Attributes:
        port: Of its RPCs.
    """

    port: int


@asynccontextmanager
async def running(settings: ContextSettings) -> AsyncIterator[Running]:
    """The context store, serving while inside. Waits for Redis.

    Raises:
        ValueError: A key or an address is missing or weak.
        RuntimeError: The port is taken, or Redis would evict contexts.
    """
    webhook = settings.webhook
    async with AsyncExitStack() as stack:
        client = redis.connect(webhook.redis)
        stack.push_async_callback(client.aclose)
        blocking = redis.connect(webhook.redis, block_s=BLOCK_S)
        stack.push_async_callback(blocking.aclose)
        authenticator = Authenticator(
            client, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
        )
        cold = await stack.enter_async_context(_cold_store(webhook.cold_storage))
        parts = tiering(client, cold, webhook)
        store, tiers = parts.store, parts.tiers
        await _redis_is_fit(client, allow_evicting=webhook.redis.allow_evicting_policy)

        feeds, search = Feeds(client), Search(store)
        stack.push_async_callback(search.close)
        changes = Changes(blocking, touched=search.touch, lost=search.mistrust)
        loops = (changes.follow(), search.keep_fresh(), parts.ageing.run(), parts.pressure.run())
        tasks = [asyncio.create_task(loop) for loop in loops]
        stack.push_async_callback(ended, tasks)

        contexts = ContextServicer(
            store=store,
            appending=Appending(client, store, tiers, feeds, search, hot_ms=parts.policy.hot_ms),
            updating=Updating(
                client, store=store, tiers=tiers, transitions=parts.transitions, feeds=feeds, search=search
            ),
            listing=Listing(store),
            search=search,
            tiers=tiers,
            rise_reads=parts.policy.rise_reads,
        )
        admin = ContextAdminServicer(store, Stats(store, tiers), parts.memory, parts.forcing)
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.context,
                _services(contexts, admin),
                authenticator=authenticator,
                ready={"redis": partial(redis.ping, client)},
                drain_s=settings.process.drain_timeout.total_seconds(),
                tls=webhook.tls,
            )
        )
        yield Running(port)


@asynccontextmanager
async def _cold_store(settings: ColdStorageSection) -> AsyncIterator[ColdStore]:
    if not settings.bucket:
        yield DirectoryColdStore(settings.directory)
        return
    # Only with a bucket: the driver costs a process that has none 40 MB and half a second.
    from webhook_context.cold_s3 import bucket  # noqa: PLC0415  # see above

    async with bucket(settings) as cold:
        yield cold


def _services(contexts: ContextServicer, admin: ContextAdminServicer) -> list[Service]:
    return [
        Service(
            "webhook.context.v1.ContextService",
            partial(add_ContextServiceServicer_to_server, contexts),
            Role.READER,
            dict.fromkeys(("AppendEvents", "UpdateContext", "PatchContext", "DeleteContext"), Role.WRITER),
        ),
        Service(
            "webhook.context.v1.ContextAdminService",
            partial(add_ContextAdminServiceServicer_to_server, admin),
            Role.OPERATOR,
        ),
    ]


async def _redis_is_fit(client: Client, *, allow_evicting: bool) -> None:
    backoff = Backoff()
    while True:
        try:
            return await redis.guard(client, allow_evicting=allow_evicting)
        except REDIS_TROUBLE:
            await backoff.wait()
