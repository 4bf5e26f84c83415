"""Opens what the service needs, joins it, and closes it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import structlog
from webhook.security.v1 import security_admin_service_pb2
from webhook.security.v1.admission_service_pb2_grpc import add_AdmissionServiceServicer_to_server
from webhook.security.v1.security_admin_service_pb2_grpc import add_SecurityAdminServiceServicer_to_server
from webhook_shared import redis as store
from webhook_shared.audit.trail import put_on_record
from webhook_shared.compression import QUICK_LEVEL
from webhook_shared.dictionaries.administration import DictionaryAdministration
from webhook_shared.dictionaries.samples import Samples
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.dictionaries.trainer import Trainer
from webhook_shared.partitions import Partitions
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import ApiKeys, Authenticator, Certificates, Role
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.master_keys import all_of
from webhook_shared.settings import PublishedQueue
from webhook_shared.tasks import ended

from webhook_security import catalogue, event_samples
from webhook_security.admin.rotation import Rotations
from webhook_security.admin.secrets_servicer import SecretsAdministration
from webhook_security.admin.servicer import SecurityAdminServicer
from webhook_security.admission.judge import Admission
from webhook_security.admission.readmission import Readmissions
from webhook_security.admission.tenants import TenantKeys
from webhook_security.duplicates.known import KnownDuplicates
from webhook_security.duplicates.seen import Seen
from webhook_security.evidence.forgetting import Forgetting
from webhook_security.evidence.keepers import Evidence
from webhook_security.limits.addresses import addresses_of
from webhook_security.limits.rates import Limits
from webhook_security.registry import secret_check
from webhook_security.registry.config import REREAD_S
from webhook_security.registry.following import Following
from webhook_security.registry.postgres import PostgresSources
from webhook_security.registry.snapshot import Snapshot
from webhook_security.registry.sources import Registry, unusable
from webhook_security.secrets.stored import StoredSecrets
from webhook_security.secrets.uses import SecretUses
from webhook_security.servicer import AdmissionServicer
from webhook_security.settings import DatabaseRegistrySection, DeduplicationSection, SecuritySettings

log = structlog.get_logger()


@dataclass(frozen=True)
class Running:
    """The service while it runs.

    Attributes:
        port: Where it serves gRPC.
    """

    port: int


@asynccontextmanager
async def running(settings: SecuritySettings) -> AsyncIterator[Running]:
    """The service is up while inside.

    Raises:
        ValueError, RuntimeError: It can't start; one line says why.
    """
    webhook = settings.webhook
    security = webhook.security
    registry = Registry(catalogue.load(security.signature_header), security, webhook.deduplication)
    if security.enable_signature_verification:
        secret_check.check(registry.sources())
    async with AsyncExitStack() as stack:
        client = store.connect(webhook.redis)
        stack.push_async_callback(client.aclose)
        # Before any waiting: a missing key is told at once, whether Redis is there or not.
        master_keys = all_of(webhook.encryption)
        keyring = Keyring(client, master_keys, Dictionaries(client, "events"))
        authenticator = Authenticator(
            client, webhook.identity.internal_key, Certificates(webhook.identity, webhook.tls)
        )
        async with store.opened(webhook.redis):
            pass
        await master_key_record.settle(client, master_keys)
        keys = TenantKeys(keyring)
        await stack.enter_async_context(
            _registered(
                security.database_registry, registry, keys, Snapshot(client, keyring, PostgresSources.name)
            )
        )
        await keys.serve(registry.tenants())
        administered = await stack.enter_async_context(_rotated(client, keyring, registry))
        _tell(registry, verifying=security.enable_signature_verification)
        addresses = addresses_of(security, client)
        if addresses is not None:
            await stack.enter_async_context(addresses.kept())
        evidence = Evidence.of(client, keyring, master_keys, registry, security)
        await stack.enter_async_context(evidence.kept())
        samples, trainer = _training(client, keyring, webhook.dictionaries)
        admission = Admission(
            registry,
            keyring,
            evidence.rejections,
            verifying=security.enable_signature_verification,
            addresses=addresses,
            samples=samples,
            known=_known(client, webhook.deduplication, webhook.consumer),
        )
        if trainer is not None:
            await stack.enter_async_context(_trained(trainer))
        limits = Limits(client, security) if security.enable_rate_limiting else None
        await stack.enter_async_context(_background(registry, keys))
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.security,
                _services(
                    registry,
                    admission,
                    keys,
                    limits=limits,
                    evidence=evidence,
                    api_keys=ApiKeys(client),
                    administered=administered,
                    dictionaries=DictionaryAdministration(keyring, trainer),
                    forgetting=Forgetting(client, evidence.store),
                    settings=settings,
                ),
                authenticator=authenticator,
                ready={"tenant keys": keys.check},
                drain_s=settings.process.drain_timeout.total_seconds(),
                tls=webhook.tls,
            )
        )
        # Before the server drains: who follows the chain would stay as long as it may.
        stack.callback(evidence.end)
        yield Running(port)


def _services(
    registry: Registry,
    admission: Admission,
    keys: TenantKeys,
    *,
    limits: Limits | None,
    evidence: Evidence,
    api_keys: ApiKeys,
    administered: SecretsAdministration,
    dictionaries: DictionaryAdministration,
    forgetting: Forgetting,
    settings: SecuritySettings,
) -> list[Service]:
    verifying = settings.webhook.security.enable_signature_verification
    readmissions = Readmissions(evidence.store, admission, keys, evidence.audit)
    questions = AdmissionServicer(
        admission, keys, registry, readmissions, limits=limits, audit=evidence.audit
    )
    administration = SecurityAdminServicer(
        registry,
        api_keys,
        administered,
        evidence,
        dictionaries,
        forgetting=forgetting,
        verifying=verifying,
    )
    if evidence.audit:
        service = security_admin_service_pb2.DESCRIPTOR.services_by_name["SecurityAdminService"]
        put_on_record(administration, service, evidence.audit)
    return [
        Service(
            "webhook.security.v1.AdmissionService",
            lambda server: add_AdmissionServiceServicer_to_server(questions, server),
            Role.INTERNAL,
        ),
        Service(
            "webhook.security.v1.SecurityAdminService",
            lambda server: add_SecurityAdminServiceServicer_to_server(administration, server),
            Role.OPERATOR,
            {"Forget": Role.INTERNAL},
        ),
    ]


def _known(
    client: store.Client, section: DeduplicationSection, queue: PublishedQueue
) -> KnownDuplicates | None:
    if not section.bloom_filter_size:
        return None
    seen = Seen(
        section.bloom_filter_size, section.bloom_filter_hash_funcs, section.bloom_filter_false_positive_rate
    )
    log.info("duplicates.filter", capacity=seen.capacity, size_bytes=seen.size_bytes)
    return KnownDuplicates(client, Partitions(queue.stream, queue.partitions), seen)


@asynccontextmanager
async def _registered(
    section: DatabaseRegistrySection, registry: Registry, keys: TenantKeys, snapshot: Snapshot
) -> AsyncIterator[None]:
    """Sources come from a database too, if one is named."""
    if not section.url.get_secret_value():
        yield
        return
    following = Following(
        PostgresSources(section),
        registry,
        every_s=section.refresh_interval.total_seconds(),
        snapshot=snapshot,
        changed=lambda: keys.serve(registry.tenants()),
    )
    await following.begin()
    task = asyncio.create_task(following.keep())
    try:
        yield
    finally:
        await ended([task])


@asynccontextmanager
async def _rotated(
    client: store.Client, keyring: Keyring, registry: Registry
) -> AsyncIterator[SecretsAdministration]:
    """What was rotated holds, and may be rotated further."""
    stored = StoredSecrets(client, keyring, registry.rotate)
    uses = SecretUses(client)
    await stored.load(registry.tenants())
    tasks = [
        asyncio.create_task(stored.keep(registry.tenants)),
        asyncio.create_task(uses.keep(registry.uses)),
    ]
    try:
        yield SecretsAdministration(registry, Rotations(registry, stored), uses)
    finally:
        await ended(tasks)
        with suppress(*REDIS_TROUBLE):
            await uses.save(registry.uses())
            await stored.leave()


def _training(
    client: store.Client, keyring: Keyring, section: DictionarySection
) -> tuple[Samples | None, Trainer | None]:
    if not section.training:
        return None, None
    samples = Samples(section.sample_memory)
    rewrite = f"{event_samples.__name__}:{event_samples.rewritten.__name__}"
    return samples, Trainer(client, keyring, samples, section, rewrite=rewrite, level=QUICK_LEVEL)


@asynccontextmanager
async def _trained(trainer: Trainer) -> AsyncIterator[None]:
    task = asyncio.create_task(trainer.run())
    try:
        yield
    finally:
        await ended([task])


@asynccontextmanager
async def _background(registry: Registry, keys: TenantKeys) -> AsyncIterator[None]:
    configured = Following(registry.configured, registry, every_s=REREAD_S)
    tasks = [
        asyncio.create_task(configured.keep()),
        asyncio.create_task(keys.keep()),
    ]
    try:
        yield
    finally:
        await ended(tasks)


def _tell(registry: Registry, *, verifying: bool) -> None:
    if not verifying:
        log.warning(
            "SIGNATURES ARE NOT VERIFIED: anybody may send anything, and it is taken as trust scheme none",
            key="webhook.security.enable_signature_verification",
        )
    refusing = unusable(registry.sources())
    if refusing and verifying:
        log.warning("sources.without_secret", sources=refusing, consequence="they answer 503")
    ready = [f"{source.tenant}/{source.tool}" for source in registry.sources() if source.usable]
    log.info("sources.ready", sources=ready)
