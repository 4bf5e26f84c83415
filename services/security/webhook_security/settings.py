"""The settings of the security service: `webhook.security` and `webhook.deduplication`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, model_validator
from webhook_shared.settings import (
    ByteCount,
    Duration,
    EncryptionSection,
    FromEnvironment,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

DEFAULT_TENANT = "default"
ROUTE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a tenant or tool may be called; use with `fullmatch`."""

_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")

_LIMITS_COME = "no rate is limited yet"
_BLOOM_COMES = "duplicates are looked up exactly, with no filter before"


def _route_name(value: str) -> str:
    if not ROUTE_NAME.fullmatch(value):
        raise ValueError("a name is 1 to 63 of a-z, 0-9, - and _, and begins with a letter or digit")
    return value


def _reference(value: object) -> object:
    if isinstance(value, FromEnvironment):
        raise ValueError("write env:NAME instead of ${NAME}, so that the secret itself never stands here")
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise ValueError("a secret does not stand in the file itself: write env:NAME or file:PATH")
    return value


def _header_name(value: str) -> str:
    if not _HEADER_NAME.fullmatch(value):
        raise ValueError("not the name of an HTTP header")
    return value


def _moment(value: object) -> object:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("write a time as 2026-09-01 or 2026-09-01T12:00:00Z") from None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return value


def _entries(value: object) -> object:
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple({"ref": entry} if isinstance(entry, str) else entry for entry in entries)


def _known_apart(entries: tuple[SecretEntry, ...]) -> tuple[SecretEntry, ...]:
    names = [entry.name for entry in entries]
    if not names:
        raise ValueError("names no secret: leave the tool out instead")
    if len(set(names)) != len(names):
        raise ValueError("two secrets of one tool have the same key_id")
    return entries


RouteName = Annotated[str, AfterValidator(_route_name)]
Reference = Annotated[str, BeforeValidator(_reference)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class SecretEntry(Section):
    """One secret of a tool, by reference. Several of one tool may be live at once."""

    ref: Reference = setting(
        ..., description="env:NAME, or file:PATH, which is read again every few seconds."
    )
    key_id: str = setting(
        "", pattern=r"^[\x21-\x7e]{0,128}$", description="Its public name; the reference where none is given."
    )
    not_before: Moment | None = setting(None, description="It verifies nothing earlier; UTC unless said.")
    not_after: Moment | None = setting(None, description="It verifies nothing from then on; UTC unless said.")

    @property
    def name(self) -> str:
        """What metrics, logs and the trust of an event call it."""
        return self.key_id or self.ref

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.not_before and self.not_after and self.not_before >= self.not_after:
            raise ValueError("not_before must be earlier than not_after")
        return self


SecretEntries = Annotated[tuple[SecretEntry, ...], BeforeValidator(_entries), AfterValidator(_known_apart)]


class TenantSection(Section):
    """`webhook.security.tenants.<tenant>`: what differs from the default tenant."""

    signature_secrets: dict[RouteName, SecretEntries] = setting(
        {}, description="The tools of this tenant and their secrets; it has no others."
    )


class SecuritySection(Section):
    """`webhook.security`: who gets in."""

    enable_signature_verification: bool = setting(
        True,
        env="WEBHOOK_SIGNATURE_VERIFICATION",
        description="Off lets everything in, as trust scheme none; for a closed laboratory only.",
    )
    signature_header: HeaderName = setting(
        "X-Webhook-Signature", description="Where tools that the catalogue does not know put their signature."
    )
    timestamp_tolerance: Duration = setting(
        timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=1),
        description="How far a signed time may be from our clock, either way, where the source says nothing.",
    )
    enable_rate_limiting: bool = setting(
        True,
        env="WEBHOOK_RATE_LIMITING",
        not_yet=_LIMITS_COME,
        description="Whether rates are limited.",
    )
    global_rate_limit: int = setting(
        10_000, ge=1, not_yet=_LIMITS_COME, description="Deliveries per second, all tools together."
    )
    per_tool_rate_limits: dict[RouteName, int] = setting(
        {}, not_yet=_LIMITS_COME, description="Deliveries per second of one tool."
    )
    max_payload_size: ByteCount = setting(
        10 * 2**20,
        description="Largest body of sources whose catalogue entry names none (GitHub's does: 25 MiB).",
    )
    enable_audit_logging: bool = setting(
        True,
        not_yet="refusals are logged and counted; there is no audit trail",
        description="Whether an audit trail is kept.",
    )
    signature_secrets: dict[RouteName, SecretEntries] = setting(
        {},
        description="Secrets of the default tenant's tools; others have env:<TOOL>_WEBHOOK_SECRET.",
    )
    source_kinds: dict[RouteName, RouteName] = setting(
        {}, description="The catalogue entry that a tool follows where it is not called so: {acme: github}."
    )
    tenants: dict[RouteName, TenantSection] = setting(
        {}, description="The other tenants, at /webhooks/{tenant}/{tool}."
    )


class WindowSection(Section):
    """`webhook.deduplication.window_configs.<tool>`."""

    duration: Duration | None = setting(
        None,
        ge=timedelta(seconds=1),
        description="How long a delivery is remembered; the catalogue's where it is left out.",
    )
    max_size: int | None = setting(
        None,
        ge=1,
        le=100,
        description="How many deliveries of one event pass within it; the catalogue's where it is left out.",
    )


class DeduplicationSection(Section):
    """`webhook.deduplication`: what counts as the same delivery."""

    window_configs: dict[RouteName, WindowSection] = setting({}, description="Windows by tool.")
    default_window: Duration = setting(
        timedelta(hours=24),
        ge=timedelta(seconds=1),
        description="The window of sources whose catalogue entry names none.",
    )
    bloom_filter_size: int = setting(10_000_000, ge=1, not_yet=_BLOOM_COMES, description="Bits.")
    bloom_filter_hash_funcs: int = setting(4, ge=1, not_yet=_BLOOM_COMES, description="Hashes per entry.")


class SecurityWebhook(ServiceGroup):
    """`webhook`, as far as this service reads it."""

    encryption: EncryptionSection = EncryptionSection()
    security: SecuritySection = SecuritySection()
    deduplication: DeduplicationSection = DeduplicationSection()


class SecuritySettings(ServiceSettings):
    """Everything that this process reads."""

    webhook: SecurityWebhook = SecurityWebhook()


def as_unix(moment: datetime | None, otherwise: float) -> float:
    """Unix seconds of a bound in time."""
    return otherwise if moment is None else moment.timestamp()


__all__: list[Any] = [
    "DEFAULT_TENANT",
    "ROUTE_NAME",
    "DeduplicationSection",
    "SecretEntry",
    "SecuritySection",
    "SecuritySettings",
    "SecurityWebhook",
    "TenantSection",
    "WindowSection",
    "as_unix",
]
