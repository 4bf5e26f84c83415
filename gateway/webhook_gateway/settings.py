"""What an operator may set of the gateway."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator
from webhook_shared.networks import NetworkList
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.settings import (
    ByteCount,
    Duration,
    PublishedQueue,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)
from webhook_shared.sqs.migration import MigrationSection


class SpoolSection(Section):
    """`webhook.gateway.spool`: where verified events wait while Redis is away."""

    directory: str = setting(
        "",
        env="WEBHOOK_SPOOL_DIRECTORY",
        description="On a local disk that survives a restart, one per gateway process; empty: no spool, 503.",
    )
    max_events: int = setting(
        100_000,
        ge=1,
        description="Most events that wait; more are answered 503. Each takes 1 KB of memory.",
    )
    max_bytes: ByteCount = setting(
        2**30, ge=2**20, description="Most bytes that wait, sealed as they are, and 512 for each event."
    )


class QuarantineSection(Section):
    """`webhook.gateway.quarantine`: how much is kept of what is signed right and can't be read."""

    max_events: int = setting(10_000, ge=1, description="Most events in quarantine.")
    max_bytes: ByteCount = setting(
        256 * 2**20, ge=2**20, description="Most memory of Redis for them, as the server counts it."
    )
    max_age: Duration = setting(
        timedelta(days=30), ge=timedelta(minutes=1), description="How long an event stays there."
    )


class GatewaySection(Section):
    """`webhook.gateway`: the HTTP edge. Limits of size and content type belong to security's sources."""

    http_address: str = setting(
        "127.0.0.1:8080", env="WEBHOOK_HTTP_ADDRESS", description="host:port to take webhooks on."
    )
    http_tls_cert_file: str = setting(
        "",
        env="WEBHOOK_HTTP_TLS_CERT_FILE",
        description="Certificate of the HTTP edge and its chain, PEM; empty: plain HTTP.",
    )
    http_tls_key_file: str = setting(
        "", env="WEBHOOK_HTTP_TLS_KEY_FILE", description="Key of the HTTP edge's certificate, PEM."
    )
    http_allow_plain_text: bool = setting(
        False,
        env="WEBHOOK_HTTP_ALLOW_PLAIN_TEXT",
        description="Take plain HTTP from other machines too: only behind a proxy that ends TLS.",
    )
    header_timeout: Duration = setting(
        timedelta(seconds=5), description="How long a sender may take for the request line and headers."
    )
    body_timeout: Duration = setting(
        timedelta(seconds=10), description="How long a sender may take for the body, after the headers."
    )
    keep_alive_timeout: Duration = setting(
        timedelta(seconds=75), description="How long a connection may idle between two requests."
    )
    trusted_proxies: NetworkList = setting(
        (),
        env="WEBHOOK_TRUSTED_PROXIES",
        description="Networks of the proxies in front of us, whose forwarded_header names the sender.",
    )
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = setting(
        "X-Forwarded-For",
        env="WEBHOOK_FORWARDED_HEADER",
        description="What trusted proxies write the sender into; the other header is not looked at.",
    )
    unbelieved_rate_limit: int = setting(
        200,
        ge=0,
        le=1_000_000,
        description="Requests per second of one address (IPv6: one /64) that may be refused, five seconds of "
        "it at once; then it is answered 429 at the header. One that is believed makes up for one. 0: none.",
    )
    max_connections: int = setting(
        10_000, ge=1, le=1_000_000, description="Open connections of senders; further ones are answered 503."
    )
    max_connections_per_address: int = setting(
        1_000,
        ge=1,
        description="Of one address (IPv6: one /64), trusted proxies apart; further ones are answered 429.",
    )
    max_body_memory: ByteCount = setting(
        256 * 2**20,
        description="For bodies in memory, from the first byte to the answer; past it 503. Not less than the "
        "largest body that is to be taken.",
    )
    admit_timeout: Duration = setting(
        timedelta(seconds=2), description="How long security may take to judge before we answer 503."
    )
    publish_timeout: Duration = setting(
        timedelta(seconds=2),
        description="How long Redis may be away before events go to the spool; without one, they get 503.",
    )
    durability_replicas: int = setting(
        1, ge=1, le=100, description="Replicas that must have an event whose source asks for `replicated`."
    )
    durability_timeout: Duration = setting(
        timedelta(seconds=1),
        ge=timedelta(milliseconds=1),
        description="How long to wait for the durability that a source asks for before we answer 503; "
        "at most half of publish_timeout.",
    )
    spool: SpoolSection = SpoolSection()
    quarantine: QuarantineSection = QuarantineSection()
    policy_refresh: Duration = setting(
        timedelta(seconds=5), description="How often the sources' limits are asked of security."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.http_tls_cert_file) != bool(self.http_tls_key_file):
            raise ValueError(
                "http_tls_cert_file (WEBHOOK_HTTP_TLS_CERT_FILE) and http_tls_key_file "
                "(WEBHOOK_HTTP_TLS_KEY_FILE) go together"
            )
        return self


class GatewayWebhook(ServiceGroup):
    """`webhook`, as far as the gateway reads it."""

    gateway: GatewaySection = GatewaySection()
    consumer: PublishedQueue = PublishedQueue()
    migration: MigrationSection = MigrationSection()
    cold_storage: ObjectStorageSection = ObjectStorageSection()


class GatewaySettings(ServiceSettings):
    """The settings of the gateway's process."""

    webhook: GatewayWebhook = GatewayWebhook()
