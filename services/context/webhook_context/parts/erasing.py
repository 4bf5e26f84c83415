"""Everything that forgetting consists of, put together for one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.retention import Retention
from webhook_shared.rpc.channel import connected
from webhook_shared.sealing.master_keys import Purpose

from webhook_context.consumer_client import ConsumerClient
from webhook_context.erasing.certificate import Signer
from webhook_context.erasing.contexts import ErasingContexts
from webhook_context.erasing.erasures import Erasures
from webhook_context.erasing.expiring import Expiring
from webhook_context.erasing.forgetting import Erasing, Settling
from webhook_context.erasing.jobs import Jobs
from webhook_context.erasing.subjects import ErasingSubjects
from webhook_context.finding.search import Search
from webhook_context.ingest_client import GatewayClient
from webhook_context.intelligence_client import IntelligenceClient
from webhook_context.parts.tiers import Tiering
from webhook_context.security_client import SecurityClient
from webhook_context.settings import ContextWebhook
from webhook_context.writing.erased_names import ErasedNames
from webhook_context.writing.updating import Updating

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Forgetting:
    """The parts, as the rest of the process uses them."""

    erasures: Erasures
    expiring: Expiring


def erased_names(client: Client, parts: Tiering) -> ErasedNames:
    """Of whom nothing from before their erasure is taken."""
    return ErasedNames(client, parts.master_keys.names(Purpose.ERASURES))


@asynccontextmanager
async def forgetting(
    client: Client,
    cold: ObjectStore,
    parts: Tiering,
    webhook: ContextWebhook,
    *,
    names: ErasedNames,
    updating: Updating,
    search: Search,
    settling: Settling,
) -> AsyncIterator[Forgetting]:
    """The parts, with channels to the services that keep something beside.

    Raises:
        ValueError: The signing key is short.
    """
    key = parts.master_keys.names(Purpose.ERASURES)
    signer, jobs = Signer(webhook.erasure.signing_key, key), Jobs(client, key)
    contexts = ErasingContexts(
        client,
        cold,
        parts.names,
        inventory=parts.inventory,
        transitions=parts.transitions,
        cold_packs=parts.small.cold_packs,
        store=parts.store,
        updating=updating,
        feeds=parts.feeds,
        search=search,
    )
    subjects = ErasingSubjects(
        client,
        parts.learning.keyring,
        store=parts.store,
        archive=parts.archive,
        inventory=parts.inventory,
        transitions=parts.transitions,
        feeds=parts.feeds,
        search=search,
        whole=contexts,
    )
    async with AsyncExitStack() as stack:
        services, credential = webhook.services, webhook.identity.internal_key
        elsewhere = [
            client_of(
                await stack.enter_async_context(
                    connected(address, key=credential, deadline_s=DEADLINE_S, tls=webhook.tls)
                )
            )
            for client_of, address in (
                # The record of it first.
                (SecurityClient, services.security),
                (ConsumerClient, services.consumer),
                (GatewayClient, services.gateway),
                (IntelligenceClient, services.intelligence),
            )
        ]
        erasing = Erasing(
            client,
            parts.learning.keyring,
            parts.key_copies,
            jobs=jobs,
            names=names,
            store=parts.store,
            tiers=parts.tiers,
            contexts=contexts,
            subjects=subjects,
            elsewhere=elsewhere,
            signer=signer,
            settling=settling,
        )
        retention = webhook.retention
        yield Forgetting(
            Erasures(erasing, jobs, signer, parts.store),
            Expiring(
                client,
                parts.store,
                parts.tiers,
                updating,
                Retention.of("contexts", retention.contexts, retention.rules),
                every_s=retention.sweep_interval.total_seconds(),
            ),
        )
