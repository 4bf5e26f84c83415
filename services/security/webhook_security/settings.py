"""The settings of the security service: `webhook.security` and `webhook.deduplication`."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from webhook_shared.audit.settings import AuditSection
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.networks import parse_network
from webhook_shared.settings import (
    ByteCount,
    Duration,
    EncryptionSection,
    FromEnvironment,
    PublishedQueue,
    Secret,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

from webhook_security.catalogue import SourceSection

DEFAULT_TENANT = "default"
ROUTE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""What a tenant or tool may be called; use with `fullmatch`."""

HIGHEST_RATE = 10_000_000
"""Per second; a bucket of it is counted exactly."""

_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")


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


def _allowed(value: object) -> object:
    return {"networks": value} if isinstance(value, list | tuple) else value


def _address_origin(value: str) -> str:
    kind = value.partition(":")[0]
    if kind == "file":
        return value
    if "://" not in value:
        parse_network(value)
    elif kind != "https" and not (kind == "http" and urlsplit(value).hostname in _LOOPBACK):
        raise ValueError("a list of addresses comes over https; over http from this machine alone")
    return value


def _known_apart(entries: tuple[SecretEntry, ...]) -> tuple[SecretEntry, ...]:
    names = [entry.name for entry in entries]
    if not names:
        raise ValueError("names no secret: leave the tool out instead")
    if len(set(names)) != len(names):
        raise ValueError("two secrets of one tool have the same key_id")
    return entries


RouteName = Annotated[str, AfterValidator(_route_name)]
Rate = Annotated[int, Field(ge=1, le=HIGHEST_RATE)]
Reference = Annotated[str, BeforeValidator(_reference)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
AddressOrigin = Annotated[str, AfterValidator(_address_origin)]
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


class AllowedSection(Section):
    """`webhook.security.allowed_addresses.<tool>`; a list of networks alone is short for it."""

    networks: tuple[AddressOrigin, ...] = setting(
        ...,
        min_length=1,
        description="192.0.2.0/24, an address, file:PATH or https://HOST/PATH#/json/pointer (* for each).",
    )
    mode: Literal["enforce", "observe"] = setting(
        "enforce", description="enforce answers others 403; observe lets them in, marked as unlisted."
    )
    refresh: Duration = setting(
        timedelta(hours=1),
        ge=timedelta(milliseconds=50),
        description="How often URLs are asked again; files are looked at every few seconds.",
    )


AllowedAddresses = Annotated[AllowedSection, BeforeValidator(_allowed)]


class TenantSection(Section):
    """`webhook.security.tenants.<tenant>`: what differs from the default tenant."""

    signature_secrets: dict[RouteName, SecretEntries] = setting(
        {}, description="The tools of this tenant and their secrets; it has no others."
    )
    allowed_addresses: dict[RouteName, AllowedAddresses] = setting(
        {}, description="Where this tenant's senders send from; its tools that it leaves out as for all."
    )


class RejectionsSection(Section):
    """`webhook.security.rejections`: refused deliveries that are kept; every source has the same share."""

    max_count: int = setting(
        10_000, ge=100, le=10_000_000, description="How many are kept, all sources together."
    )
    max_bytes: ByteCount = setting(
        64 * 2**20,
        description="Room for the deliveries themselves, all sources together; they are what a retry needs.",
    )
    max_age: Duration = setting(
        timedelta(days=7),
        ge=timedelta(minutes=1),
        le=timedelta(days=365),
        description="How long one is kept.",
    )
    per_second: int = setting(
        10, ge=0, le=1000, description="How many of one cause at one source are kept per second; 0: none."
    )


class DatabaseRegistrySection(Section):
    """`webhook.security.database_registry`: sources out of PostgreSQL, the table `mcp.webhook_configs`."""

    url: Secret = setting(
        SecretStr(""),
        env="WEBHOOK_REGISTRY_DATABASE_URL",
        description="postgresql://user:password@host:5432/database; empty: no database is asked.",
    )
    tool: RouteName = setting(
        "github", description="What the rows are for: each gives the route /webhooks/<organisation>/<tool>."
    )
    refresh_interval: Duration = setting(
        timedelta(seconds=10),
        ge=timedelta(milliseconds=100),
        le=timedelta(hours=1),
        description="How often the table is read.",
    )

    @model_validator(mode="after")
    def _of_postgresql(self) -> Self:
        url = self.url.get_secret_value()
        if url and not url.startswith(("postgresql://", "postgres://")):
            # The text must not repeat it: a password stands in it.
            raise ValueError("url: write postgresql://user:password@host:5432/database")
        return self


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
        description="Whether rates are limited.",
    )
    global_rate_limit: int = setting(
        10_000,
        ge=1,
        le=HIGHEST_RATE,
        description="Believed deliveries per second, all together; half of what may come at once is kept in "
        "equal shares for the sources that are active.",
    )
    per_tool_rate_limits: dict[RouteName, Rate] = setting(
        {}, description="Believed deliveries per second of one tool, for each tenant by itself."
    )
    per_tenant_rate_limits: dict[RouteName, Rate] = setting(
        {}, description="Believed deliveries per second of one tenant."
    )
    rate_limit_burst: Duration = setting(
        timedelta(seconds=1),
        ge=timedelta(milliseconds=10),
        le=timedelta(minutes=1),
        description="How much of its rate may come at once, as the time in which that much refills.",
    )
    allowed_addresses: dict[RouteName, AllowedAddresses] = setting(
        {}, description="Where a tool's sender sends from; an empty table lets it send from anywhere."
    )
    max_payload_size: ByteCount = setting(
        10 * 2**20,
        description="Largest body of sources whose catalogue entry names none (GitHub's does: 25 MiB).",
    )
    enable_audit_logging: bool = setting(True, description="Whether the audit chain is written.")
    audit: AuditSection = AuditSection()
    rejections: RejectionsSection = RejectionsSection()
    signature_secrets: dict[RouteName, SecretEntries] = setting(
        {},
        description="Secrets of the default tenant's tools; others have env:<TOOL>_WEBHOOK_SECRET.",
    )
    source_kinds: dict[RouteName, RouteName] = setting(
        {}, description="The catalogue entry that a tool follows where it is not called so: {acme: github}."
    )
    database_registry: DatabaseRegistrySection = DatabaseRegistrySection()
    sources: dict[RouteName, SourceSection] = setting(
        {}, description="What differs, by tool, from the catalogue entry that it follows: schemes, delivery."
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
    bloom_filter_size: int = setting(
        10_000_000,
        ge=0,
        le=2**33,
        description="Bits of the filter that tells deliveries that were certainly never seen, of which there "
        "are two at a time; 0: none, every duplicate goes through to the stream's script.",
    )
    bloom_filter_hash_funcs: int = setting(4, ge=1, le=16, description="Hashes per entry.")
    bloom_filter_false_positive_rate: float = setting(
        0.001,
        gt=0,
        le=0.5,
        description="How often it may be wrong about a new delivery, which then costs a look-up: past this a "
        "filter counts as full and the next one begins.",
    )


class SecurityWebhook(ServiceGroup):
    """`webhook`, as far as this service reads it."""

    encryption: EncryptionSection = EncryptionSection()
    dictionaries: DictionarySection = DictionarySection()
    security: SecuritySection = SecuritySection()
    deduplication: DeduplicationSection = DeduplicationSection()
    consumer: PublishedQueue = PublishedQueue()


class SecuritySettings(ServiceSettings):
    """Everything that this process reads."""

    webhook: SecurityWebhook = SecurityWebhook()


def as_unix(moment: datetime | None, otherwise: float) -> float:
    """Unix seconds of a bound in time."""
    return otherwise if moment is None else moment.timestamp()


__all__: list[Any] = [
    "DEFAULT_TENANT",
    "ROUTE_NAME",
    "AuditSection",
    "DatabaseRegistrySection",
    "DeduplicationSection",
    "RejectionsSection",
    "SecretEntry",
    "SecuritySection",
    "SecuritySettings",
    "SecurityWebhook",
    "TenantSection",
    "WindowSection",
    "as_unix",
]
