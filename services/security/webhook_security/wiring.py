"""Opens what the service needs, joins it, and closes it again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from webhook.security.v1.admission_service_pb2_grpc import add_AdmissionServiceServicer_to_server
from webhook.security.v1.security_admin_service_pb2_grpc import add_SecurityAdminServiceServicer_to_server
from webhook_shared import redis as store
from webhook_shared.envelope import Keyring
from webhook_shared.identity import ApiKeys, Authenticator, Role
from webhook_shared.server import Service, serving
from webhook_shared.tasks import ended

from webhook_security import catalogue, secrets
from webhook_security.admin_servicer import SecurityAdminServicer
from webhook_security.admission import Admission
from webhook_security.registry import Registry, unusable
from webhook_security.rejections import Rejections
from webhook_security.secrets import Values, keep_reading
from webhook_security.servicer import AdmissionServicer
from webhook_security.settings import SecuritySettings
from webhook_security.tenants import TenantKeys

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
    values = secrets.read(registry.references())
    registry.use(values)
    _tell(registry, verifying=security.enable_signature_verification)
    async with AsyncExitStack() as stack:
        client = store.connect(webhook.redis)
        stack.push_async_callback(client.aclose)
        # Before any waiting: a missing key is told at once, whether Redis is there or not.
        keyring = Keyring(client, webhook.encryption.master_key)
        authenticator = Authenticator(client, webhook.identity.internal_key)
        async with store.opened(webhook.redis):
            pass
        keys = TenantKeys(keyring, registry.tenants())
        await keys.hold(registry.tenants())
        admission = Admission(
            registry, keyring, Rejections(), verifying=security.enable_signature_verification
        )
        await stack.enter_async_context(_background(registry, values, keys))
        port = await stack.enter_async_context(
            serving(
                settings.process.listen_address or webhook.services.security,
                _services(registry, admission, keys, ApiKeys(client), settings),
                authenticator=authenticator,
                ready={"tenant keys": keys.check},
                drain_s=settings.process.drain_timeout.total_seconds(),
            )
        )
        yield Running(port)


def _services(
    registry: Registry, admission: Admission, keys: TenantKeys, api_keys: ApiKeys, settings: SecuritySettings
) -> list[Service]:
    verifying = settings.webhook.security.enable_signature_verification
    questions = AdmissionServicer(admission, keys, registry)
    administration = SecurityAdminServicer(registry, api_keys, verifying=verifying)
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
        ),
    ]


@asynccontextmanager
async def _background(registry: Registry, values: Values, keys: TenantKeys) -> AsyncIterator[None]:
    tasks = [
        asyncio.create_task(keep_reading(registry.references(), values, registry.use)),
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
