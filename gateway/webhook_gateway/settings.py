"""What an operator may set of the gateway."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from webhook_shared.settings import (
    Duration,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)


class GatewaySection(Section):
    """`webhook.gateway`: the HTTP edge. Limits of size and content type belong to security's sources."""

    http_address: str = setting(
        "127.0.0.1:8080", env="WEBHOOK_HTTP_ADDRESS", description="host:port to take webhooks on."
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
    admit_timeout: Duration = setting(
        timedelta(seconds=2), description="How long security may take to judge before we answer 503."
    )
    publish_timeout: Duration = setting(
        timedelta(seconds=2), description="How long Redis may be away before we answer 503."
    )
    policy_refresh: Duration = setting(
        timedelta(seconds=5), description="How often the sources' limits are asked of security."
    )


class MigrationSection(Section):
    """`webhook.migration`: running beside SQS, and going back to it."""

    dual_write: bool = setting(
        False,
        env="DUAL_WRITE_MODE",
        not_yet="events go to Redis alone",
        description="Whether each event also goes to SQS.",
    )
    backend: Literal["redis", "sqs"] = setting(
        "redis",
        env="WEBHOOK_BACKEND",
        not_yet="the queue is Redis, whatever this says",
        description="The queue that events go through.",
    )
    sqs_queue_url: str = setting(
        "", env="SQS_QUEUE_URL", not_yet="see dual_write", description="The URL of the SQS queue."
    )


class GatewayWebhook(ServiceGroup):
    """`webhook`, as far as the gateway reads it."""

    gateway: GatewaySection = GatewaySection()
    migration: MigrationSection = MigrationSection()


class GatewaySettings(ServiceSettings):
    """The settings of the gateway's process."""

    webhook: GatewayWebhook = GatewayWebhook()
