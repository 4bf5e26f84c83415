"""Puts one process of the context store together; the only place that opens resources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from webhook.context.v1 import context_admin_service_pb2
from webhook.context.v1.context_admin_service_pb2_grpc import add_ContextAdminServiceServicer_to_server
from webhook.context.v1.context_service_pb2_grpc import add_ContextServiceServicer_to_server
from webhook.security.v1 import audit_pb2
from webhook_shared import redis
from webhook_shared.audit.trail import put_on_record, recording
from webhook_shared.objects import opening as object_store
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import Authenticator, Certificates, Role
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.key_copies import keep_keys_copied
from webhook_shared.sealing.master_keys import all_of
from webhook_shared.tasks import ended

from webhook_context.admin_servicer import ContextAdminServicer
from webhook_context.changes.following import BLOCK_S, Changes, Recent
from webhook_context.changes.watching import Watching
from webhook_context.erasing.forgetting import USUAL_SETTLING, Settling
from webhook_context.finding.listing import Listing
from webhook_context.finding.next_vectors import NextVectors
from webhook_context.finding.search import Search
from webhook_context.intelligence_client import IntelligenceClient
from webhook_context.master_keys.administration import key_administration
from webhook_context.parts.erasing import erased_names, forgetting
from webhook_context.parts.prewarming import prewarming
from webhook_context.parts.tiers import tiering
from webhook_context.recovery.restorations import Restorations
from webhook_context.recovery.restoring import Restoring
from webhook_context.recovery.revival import Revival
from webhook_context.reindexing.changeover import Reindexing
from webhook_context.servicer import ContextServicer
from webhook_context.settings import ContextSettings
from webhook_context.stats import Stats
from webhook_context.uses import Uses
from webhook_context.writing.appending import Appending
from webhook_context.writing.quotas import Quotas
from webhook_context.writing.updating import Updating

INTELLIGENCE_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Running:
    """A context store that serves.

    Attributes:
        port: Of its RPCs.
    """

    port: int


@asynccontextmanager
async def running(
    settings: ContextSettings, *, settling: Settling = USUAL_SETTLING
) -> AsyncIterator[Running]:
    """The context store, serving while inside. Waits for Redis.

    Args:
        settings: Of this process.
        settling: How long an erasure waits for late writers.

    Raises:
        ValueError: A key or an address is missing or weak.
        RuntimeError: The port is taken, or Redis would evict contexts.
    """
    webhook = settings.webhook
    master_keys = all_of(webhook.encryption)
    async with AsyncExitStack() as stack:
        client = redis.connect(webhook.redis)
        stack.push_async_callback(client.aclose)
        blocking = redis.connect(webhook.redis, block_s=BLOCK_S)
        stack.push_async_callback(blocking.aclose)
        authenticator = Authenticator(
            client, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
        )
        cold = await stack.enter_async_context(object_store.opened(webhook.cold_storage))
        await master_key_record.settle(client, master_keys, cold)
        parts = tiering(client, cold, webhook, master_keys=master_keys)
        chain, recorder = await stack.enter_async_context(
            recording(client, master_keys, webhook.security, audit_pb2)
        )
        keys, rotation = key_administration(client, cold, master_keys, parts.key_copies, chain.reseal)
        store, tiers = parts.store, parts.tiers
        quotas = Quotas(client, store, webhook.context_quotas)
        await _redis_is_fit(client, allow_evicting=webhook.redis.allow_evicting_policy)

        feeds, recent = parts.feeds, Recent()
        coming = NextVectors(client, parts.learning.keyring)
        search = Search(
            store,
            coming,
            build_at_start=webhook.context_search.build_at_start,
            exact_below=webhook.context_search.exact_below,
        )
        stack.push_async_callback(search.close)
        changes = Changes(blocking, touched=search.touch, lost=search.mistrust, recent=recent)
        watching = Watching(
            client,
            store,
            recent,
            most=webhook.context_watch.max_streams,
            heartbeat_s=webhook.context_watch.heartbeat_interval.total_seconds(),
        )
        loops = [changes.follow(), search.keep_fresh(), parts.ageing.run(), parts.pressure.run()]
        loops += parts.learning.loops(store.tenants)
        loops += [
            parts.orphans.run(),
            rotation.run(),
            quotas.run(),
            parts.small.compaction.run(),
            keep_keys_copied(parts.key_copies, parts.learning.keyring, store.tenants),
        ]
        intelligence = IntelligenceClient(
            await stack.enter_async_context(
                connected(
                    webhook.services.intelligence,
                    key=webhook.identity.internal_key,
                    deadline_s=INTELLIGENCE_DEADLINE_S,
                    tls=webhook.tls,
                )
            )
        )
        uses = Uses(is_kept=webhook.context_prewarming.enabled)
        warming = prewarming(client, parts, webhook, uses, intelligence)
        if warming is not None:
            loops += [warming.run(), warming.withdraw()]
        tasks = [asyncio.create_task(loop) for loop in loops]
        stack.push_async_callback(ended, tasks)

        names = erased_names(client, parts)
        appending = Appending(
            store, tiers, feeds, search, erased_names=names, hot_ms=parts.policy.hot_ms, quotas=quotas
        )
        updating = Updating(
            client, store=store, tiers=tiers, transitions=parts.transitions, feeds=feeds, search=search
        )
        forgets = await stack.enter_async_context(
            forgetting(
                client,
                cold,
                parts,
                webhook,
                names=names,
                updating=updating,
                search=search,
                settling=settling,
            )
        )
        expiring = asyncio.create_task(forgets.expiring.run())
        stack.push_async_callback(ended, [expiring])
        contexts = ContextServicer(
            store=store,
            appending=appending,
            updating=updating,
            listing=Listing(store),
            search=search,
            watching=watching,
            tiers=tiers,
            rise_reads=parts.policy.rise_reads,
            uses=uses,
        )
        revival = Revival(
            client,
            store=store,
            tiers=tiers,
            appending=appending,
            updating=updating,
            feeds=feeds,
            search=search,
        )
        restoring = Restoring(
            client,
            cold,
            parts.names,
            parts.master_keys,
            inventory=parts.inventory,
            store=store,
            revival=revival,
            member_keys=parts.small.member_keys,
        )
        admin = ContextAdminServicer(
            store,
            Stats(store, tiers, quotas),
            parts.memory,
            parts.forcing,
            dictionaries=parts.learning.administration,
            restorations=Restorations(restoring, parts.names),
            erasures=forgets.erasures,
            keys=keys,
            reindexing=Reindexing(store, coming, intelligence, feeds, search),
        )
        if recorder is not None:
            service = context_admin_service_pb2.DESCRIPTOR.services_by_name["ContextAdminService"]
            put_on_record(admin, service, recorder)
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
        # Before the server waits for what is under way.
        stack.callback(watching.end)
        yield Running(port)


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
