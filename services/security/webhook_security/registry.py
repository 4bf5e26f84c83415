"""The sources that are configured: each joins a catalogue entry, its secrets and its limits."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from webhook_security import metrics
from webhook_security.catalogue import GENERIC, Row
from webhook_security.secrets import Values
from webhook_security.settings import (
    DEFAULT_TENANT,
    ROUTE_NAME,
    DeduplicationSection,
    SecretEntry,
    SecuritySection,
    as_unix,
)
from webhook_security.verify import Check, Key, Verifier

VARIABLE_SUFFIX = "_WEBHOOK_SECRET"
"""ACME_CI_WEBHOOK_SECRET is the secret of the tool acme-ci."""

_PRODUCERS_KNOWN = 1024
_OUTCOMES = ("admitted", "quarantined", "answered", "refused")


class Source:
    """One route, ready to judge deliveries.

    Attributes:
        tenant: Owner of what comes in.
        tool: The route's name.
        kind: The catalogue entry that it follows.
        row: That entry.
        secrets: Where its secrets are, as configured.
        checks: How a delivery is verified now; replaced whenever a secret changes.
        usable: The references that can be read now.
        max_body_bytes: Largest body.
        content_types: The media types that it takes, by how a request spells them.
        window_s: How long a delivery is remembered, seconds.
        occurrences: How many deliveries of one event pass within it.
        wanted: Every header that is looked at.
        single: Those of them that may stand in a request only once.
        routing_keys: The keys of the body that decide what a delivery is.
        outcomes: The counters of what became of its deliveries.
        uses: The counters of what each secret verified, by its name.
        clock_skew: Of what it signed with a time.
    """

    def __init__(
        self,
        tenant: str,
        tool: str,
        *,
        kind: str,
        row: Row,
        secrets: Sequence[SecretEntry],
        security: SecuritySection,
        deduplication: DeduplicationSection,
        has_route: bool,
    ) -> None:
        self.tenant, self.tool, self.kind, self.row = tenant, tool, kind, row
        self.secrets = tuple(secrets)
        self.checks: Sequence[Check] = ()
        self.usable: frozenset[str] = frozenset()
        tolerance_s = security.timestamp_tolerance.total_seconds()
        self._verifiers = [Verifier(scheme, tolerance_s) for scheme in row.schemes]
        self.max_body_bytes = row.max_body if row.max_body is not None else security.max_payload_size
        self.content_types = {name.encode(): name for name in row.content_types}
        self.window_s, self.occurrences = _window(tool, row, deduplication, self._replayable_s())
        proofs = [name for scheme in row.schemes for name in scheme.headers]
        selected = [place.header for place in row.selectors if place.header]
        self.single = frozenset([*proofs, *selected, "content-type", "content-encoding"])
        self.wanted = self.single | frozenset(row.keep_headers)
        self.routing_keys = _routing_keys(row)
        # A producer may name any tool; the names of metrics come from the configuration alone.
        label = tool if has_route else metrics.UNKNOWN
        self.outcomes = {name: metrics.admissions.labels(label, name) for name in _OUTCOMES}
        self.uses = {entry.name: metrics.secret_uses.labels(tenant, label, entry.name) for entry in secrets}
        self.clock_skew = metrics.clock_skew.labels(label)

    def _replayable_s(self) -> float:
        """For how long somebody may send a signed request again and have it believed."""
        timed = [verifier for verifier in self._verifiers if verifier.scheme.timestamp]
        return max((verifier.past_s + verifier.future_s for verifier in timed), default=0.0)

    def use(self, values: Values) -> None:
        """Verify with these secrets from now on."""
        self.checks = [
            Check.of(verifier, keys) for verifier in self._verifiers if (keys := self._keys(verifier, values))
        ]
        fitting = {key.key_id for check in self.checks for key in check.keys}
        self.usable = frozenset(entry.ref for entry in self.secrets if entry.name in fitting)

    def _keys(self, verifier: Verifier, values: Values) -> list[Key]:
        keys = []
        for entry in self.secrets:
            value = values.get(entry.ref)
            material = verifier.scheme.key_of(value) if value is not None else None
            if material:
                not_before = as_unix(entry.not_before, float("-inf"))
                keys.append(Key(entry.name, material, not_before, as_unix(entry.not_after, float("inf"))))
        return keys


def _window(tool: str, row: Row, deduplication: DeduplicationSection, replayable_s: float) -> tuple[int, int]:
    configured = deduplication.window_configs.get(tool)
    window, occurrences = deduplication.default_window, 1
    if row.dedup:
        window, occurrences = row.dedup.window, row.dedup.occurrences
    if configured:
        window = configured.duration or window
        occurrences = configured.max_size or occurrences
    # Forgetting a delivery while its timestamp still passes would let it in again.
    return math.ceil(max(window.total_seconds(), replayable_s)), occurrences


def _routing_keys(row: Row) -> frozenset[str]:
    handshake = (row.handshake.when, row.handshake.reply) if row.handshake else ()
    places = (*row.delivery.id, *row.delivery.scope, *row.event.type, *row.event.action, *handshake)
    return frozenset(key for place in places for key in (place.key, *place.inner) if key)


class Registry:
    """All sources by route.

    Args:
        catalogue: The entries.
        security: Secrets, tenants, limits.
        deduplication: Windows.
        environ: Where `<TOOL>_WEBHOOK_SECRET` is looked for; the process's environment where it is None.

    Raises:
        ValueError: A tool follows an entry that is not in the catalogue.
    """

    def __init__(
        self,
        catalogue: Mapping[str, Row],
        security: SecuritySection,
        deduplication: DeduplicationSection,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._catalogue, self._security, self._deduplication = catalogue, security, deduplication
        for tool, kind in security.source_kinds.items():
            if kind not in catalogue:
                raise ValueError(
                    f"webhook.security.source_kinds.{tool}: no catalogue entry {kind}; "
                    f"there are {', '.join(sorted(catalogue))}"
                )
        routes = {
            (DEFAULT_TENANT, tool): entries
            for tool, entries in self._default_tenant(os.environ if environ is None else environ).items()
        }
        for tenant, section in security.tenants.items():
            routes |= {(tenant, tool): entries for tool, entries in section.signature_secrets.items()}
        self._sources = {
            (tenant, tool): self._source(tenant, tool, entries, has_route=True)
            for (tenant, tool), entries in sorted(routes.items())
        }
        self._for_producer = lru_cache(maxsize=_PRODUCERS_KNOWN)(self._source)

    def _default_tenant(self, environ: Mapping[str, str]) -> dict[str, Sequence[SecretEntry]]:
        named = set(self._catalogue) - {GENERIC} | set(self._security.source_kinds)
        for variable in environ:
            tool = variable.removesuffix(VARIABLE_SUFFIX).lower().replace("_", "-")
            if variable.endswith(VARIABLE_SUFFIX) and ROUTE_NAME.fullmatch(tool):
                named.add(tool)
        # Their secrets are told apart from another tool's by the variable, so `acme_ci` needs a reference.
        secrets = {tool: self._variable_of(tool) for tool in named}
        return {**secrets, **self._security.signature_secrets}

    def _variable_of(self, tool: str) -> Sequence[SecretEntry]:
        return (SecretEntry(ref=f"env:{tool.upper().replace('-', '_')}{VARIABLE_SUFFIX}"),)

    def _source(
        self, tenant: str, tool: str, secrets: Sequence[SecretEntry] = (), *, has_route: bool = False
    ) -> Source:
        kind = self._security.source_kinds.get(tool, tool if tool in self._catalogue else GENERIC)
        row = self._catalogue[kind]
        return Source(
            tenant,
            tool,
            kind=kind,
            row=row,
            secrets=secrets,
            security=self._security,
            deduplication=self._deduplication,
            has_route=has_route,
        )

    def find(self, tenant: str, tool: str) -> Source | None:
        """The source behind a route; an empty tenant is the default one."""
        return self._sources.get((tenant or DEFAULT_TENANT, tool))

    def for_producer(self, tenant: str, tool: str) -> Source | None:
        """The source of a producer that has proved who it is; it needs no secret here.

        None where tenant or tool is no name.
        """
        tenant = tenant or DEFAULT_TENANT
        if not (ROUTE_NAME.fullmatch(tenant) and ROUTE_NAME.fullmatch(tool)):
            return None
        return self._sources.get((tenant, tool)) or self._for_producer(tenant, tool)

    def sources(self) -> Sequence[Source]:
        """All that have a route, in order of tenant and tool."""
        return list(self._sources.values())

    def tenants(self) -> frozenset[str]:
        """All tenants that have a route."""
        return frozenset({DEFAULT_TENANT, *(tenant for tenant, _ in self._sources)})

    def references(self) -> frozenset[str]:
        """All secrets that are referred to."""
        return frozenset(entry.ref for source in self._sources.values() for entry in source.secrets)

    def use(self, values: Values) -> None:
        """Verify with these secrets from now on."""
        for source in self._sources.values():
            source.use(values)
        metrics.sources_without_secret.set(len(unusable(self._sources.values())))


def unusable(sources: Iterable[Source]) -> list[str]:
    """One line for each source that refuses everything because it has no secret."""
    return [
        f"{source.tenant}/{source.tool}: {', '.join(entry.ref for entry in source.secrets)}"
        for source in sources
        if not source.usable
    ]
