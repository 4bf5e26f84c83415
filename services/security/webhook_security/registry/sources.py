"""The sources that are defined: each joins a catalogue entry, its secrets and its limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from webhook.security.v1.admission_pb2 import (
    DURABILITY_FSYNCED,
    DURABILITY_REPLICATED,
    DURABILITY_UNSPECIFIED,
)

from webhook_security import metrics
from webhook_security.catalogue import GENERIC, Row, shaped
from webhook_security.duplicates.keys import Signed
from webhook_security.payloads.fields import Selector
from webhook_security.payloads.reader import Reader
from webhook_security.registry.config import ConfiguredSources
from webhook_security.registry.definitions import Definition, Registered
from webhook_security.secrets.rotated import Records, joined
from webhook_security.secrets.secret import Values
from webhook_security.secrets.uses import SecretUse
from webhook_security.settings import DEFAULT_TENANT, ROUTE_NAME, DeduplicationSection, SecuritySection
from webhook_security.verification.handshakes import Handshake
from webhook_security.verification.verify import Check, Key, Verifier

_PRODUCERS_KNOWN = 1024
_READERS = 256
_DURABILITIES = {
    "fast": DURABILITY_UNSPECIFIED,
    "replicated": DURABILITY_REPLICATED,
    "fsynced": DURABILITY_FSYNCED,
}
_OUTCOMES = ("admitted", "quarantined", "answered", "refused")


class Replays(NamedTuple):
    """How a delivery is recognised that was signed once and comes again under another id.

    Attributes:
        signed: Names what was signed.
        by_type: The type of event is part of that.
        window_s: How long it is remembered, seconds.
        dates: Where a body says when it happened; without that two events may have the same words.
        are_all_dates: These are all the places where the source looks for it.
    """

    signed: Signed
    by_type: bool
    window_s: int
    dates: tuple[Selector, ...]
    are_all_dates: bool

    @classmethod
    def of(cls, tenant: str, tool: str, row: Row) -> Replays | None:
        """What an entry says; None where ids are signed, or replays are let in."""
        dedup = row.dedup
        if dedup is None or dedup.replay == "none" or row.replay_problem:
            return None
        return cls(
            Signed(tenant, tool),
            dedup.replay == "signature_and_type",
            math.ceil((dedup.replay_window or dedup.window).total_seconds()),
            row.dates,
            row.dates == row.event.occurred,
        )


class Source:
    """One route, ready to judge deliveries.

    Attributes:
        tenant: Owner of what comes in.
        tool: The route's name.
        kind: The catalogue entry that it follows.
        dictionary: The name of what compresses its events: tools of one kind say alike, others do not.
        row: That entry.
        definition: As a registry has it.
        secrets: Where its secrets are and how long they hold, rotations included.
        values: Those of its secrets that can be read now, by reference.
        checks: How a delivery is verified now; replaced whenever a secret changes.
        usable: The references that can be read now.
        max_body_bytes: Largest body.
        content_types: The media types that it takes, by how a request spells them.
        handshake: Set where its sender shakes hands.
        masks: The places of secrets in its bodies.
        window_s: How long a delivery is remembered, seconds.
        occurrences: How many deliveries of one event pass within it.
        compares_bodies: Whether deliveries of one id and of different bodies are two events.
        replays: Set where what is signed is recognised under another id.
        durability: What its events ask for beyond the stream; unspecified where that is nothing.
        wanted: Every header that is looked at.
        single: Those of them that may stand in a request only once.
        reader: Reads its bodies.
        label: What metrics call it.
        outcomes: The counters of what became of its deliveries.
        uses: What each secret verified, by its key id.
        event_types: The types of event that are taken; None: every one.
        clock_skew: Of what it signed with a time.
    """

    def __init__(
        self,
        definition: Definition,
        *,
        kind: str,
        row: Row,
        security: SecuritySection,
        deduplication: DeduplicationSection,
        has_route: bool,
    ) -> None:
        self.definition = definition
        self.tenant, self.tool = definition.tenant, definition.tool
        self.kind, self.row = kind, row
        self.dictionary = self.tool if kind == GENERIC else kind
        self.event_types = definition.event_types
        self.secrets = list(definition.secrets)
        self.values: Values = {}
        self.checks: Sequence[Check] = ()
        self.usable: frozenset[str] = frozenset()
        tolerance_s = security.timestamp_tolerance.total_seconds()
        self._verifiers = [Verifier(scheme, tolerance_s) for scheme in row.schemes]
        self.max_body_bytes = row.max_body if row.max_body is not None else security.max_payload_size
        self.content_types = {name.encode(): name for name in row.content_types}
        self.handshake = Handshake(row.handshake) if row.handshake else None
        self.masks = row.masks
        self.durability = _DURABILITIES[row.durability]
        self.window_s, self.occurrences = _window(self.tool, row, deduplication, self._replayable_s())
        self.compares_bodies = row.dedup is None or row.dedup.compare == "body"
        self.replays = Replays.of(self.tenant, self.tool, row)
        proofs = [name for scheme in row.schemes for name in scheme.headers]
        selected = [place.header for place in row.selectors if place.header]
        self.single = frozenset([*proofs, *selected, "content-type", "content-encoding"])
        self.wanted = self.single | frozenset(row.keep_headers)
        self.reader = _reader(tuple(place.keys for place in row.selectors if place.key))
        # A producer may name any tool; the names of metrics come from the configuration alone.
        label = self.label = self.tool if has_route else metrics.UNKNOWN
        self.outcomes = {name: metrics.admissions.labels(label, name) for name in _OUTCOMES}
        self.uses: dict[str, SecretUse] = {}
        self._count()
        self.clock_skew = metrics.clock_skew.labels(label)

    def _replayable_s(self) -> float:
        """For how long somebody may send a signed request again and have it believed."""
        timed = [verifier for verifier in self._verifiers if verifier.scheme.timestamp]
        return max((verifier.past_s + verifier.future_s for verifier in timed), default=0.0)

    def use(self, values: Values, rotations: Records = ()) -> None:
        """Verify with these secrets from now on.

        Args:
            values: By reference, of this and other sources.
            rotations: What rotations say of this source.
        """
        secrets, values = joined(self.tenant, self.definition.secrets, values, rotations)
        values = {one.reference: values[one.reference] for one in secrets if one.reference in values}
        if secrets == self.secrets and values == self.values:
            return
        self.secrets, self.values = secrets, values
        self._count()
        self.checks = [
            Check.of(verifier, keys) for verifier in self._verifiers if (keys := self._keys(verifier))
        ]
        fitting = {key.key_id for check in self.checks for key in check.keys}
        self.usable = frozenset(secret.reference for secret in self.secrets if secret.key_id in fitting)

    def fits(self, value: str) -> bool:
        """Whether some scheme can use a secret."""
        return any(verifier.scheme.key_of(value) for verifier in self._verifiers)

    def _count(self) -> None:
        # A delivery that is being judged may still find a secret that is no longer there.
        for secret in self.secrets:
            if secret.key_id not in self.uses:
                self.uses[secret.key_id] = SecretUse(self.tenant, self.tool, secret.key_id, self.label)

    def _keys(self, verifier: Verifier) -> list[Key]:
        keys = []
        for secret in self.secrets:
            value = self.values.get(secret.reference)
            material = verifier.scheme.key_of(value) if value is not None else None
            if material:
                keys.append(Key(secret.key_id, material, secret.not_before, secret.not_after))
        return keys


@lru_cache(maxsize=_READERS)
def _reader(wanted: tuple[tuple[str, ...], ...]) -> Reader:
    # It takes milliseconds to make one, and all sources of a kind read alike.
    return Reader(wanted)


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


class Registry:
    """All sources by route.

    Args:
        catalogue: The entries.
        security: Secrets, tenants, limits.
        deduplication: Windows.
        environ: Where `<TOOL>_WEBHOOK_SECRET` is looked for; the process's environment where it is None.

    Attributes:
        configured: The registry of sources that is always there.
        revision: Another one whenever there are other sources.

    Raises:
        ValueError: A tool follows an entry that is not in the catalogue.
        CatalogueError: A tool's own rules do not fit together.
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
        self.configured = ConfiguredSources(list(catalogue), security, environ)
        self._registered: dict[str, Registered] = {}
        self._sources: Mapping[tuple[str, str], Source] = {}
        self._rotations: dict[str, Mapping[str, Records]] = {}
        self._for_producer = lru_cache(maxsize=_PRODUCERS_KNOWN)(self._unregistered)
        self.revision = 0
        self.take(self.configured.name, self.configured.registered())

    def take(self, name: str, registered: Registered) -> Sequence[Definition]:
        """Serve what a registry says now, instead of what it said before.

        Args:
            name: Of the registry; of two that name one route, the one that came first is heard.
            registered: What it says.

        Returns:
            Those of its sources that another registry has already.
        """
        self._registered[name] = registered
        found: dict[tuple[str, str], Definition] = {}
        hidden = []
        for origin, said in self._registered.items():
            for definition in said.definitions:
                if found.setdefault((definition.tenant, definition.tool), definition) is not definition:
                    hidden += [definition] if origin == name else []
        self._sources = {route: self._kept(definition) for route, definition in sorted(found.items())}
        self.revision += 1
        self._use()
        return hidden

    def said(self, name: str) -> Registered | None:
        """What a registry said last; None where it has said nothing."""
        return self._registered.get(name)

    def _kept(self, definition: Definition) -> Source:
        known = self._sources.get((definition.tenant, definition.tool))
        if known is not None and known.definition == definition:
            return known
        return self._source(definition, has_route=True)

    def _unregistered(self, tenant: str, tool: str) -> Source:
        return self._source(Definition(tenant, tool), has_route=False)

    def _source(self, definition: Definition, *, has_route: bool) -> Source:
        tool = definition.tool
        kind = self._security.source_kinds.get(tool, tool if tool in self._catalogue else GENERIC)
        row, section = self._catalogue[kind], self._security.sources.get(tool)
        if section:
            row = shaped(row, section, tool, self._security.signature_header)
        return Source(
            definition,
            kind=kind,
            row=row,
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

    def uses(self) -> Iterator[SecretUse]:
        """What each secret verified here."""
        return (use for source in self._sources.values() for use in source.uses.values())

    def rotate(self, tenant: str, rotations: Mapping[str, Records]) -> None:
        """Hold to what rotations say of a tenant's sources, by tool, instead of what they said before."""
        self._rotations[tenant] = rotations
        self._use(tenant)

    def _use(self, tenant: str | None = None) -> None:
        values: dict[str, str] = {}
        for registered in self._registered.values():
            values |= registered.values
        for source in self._sources.values():
            if tenant in {None, source.tenant}:
                source.use(values, self._rotations.get(source.tenant, {}).get(source.tool, ()))
        metrics.sources_without_secret.set(len(unusable(self._sources.values())))


def unusable(sources: Iterable[Source]) -> list[str]:
    """One line for each source that refuses everything because it has no secret."""
    return [
        f"{source.tenant}/{source.tool}: {', '.join(secret.reference for secret in source.secrets)}"
        for source in sources
        if not source.usable
    ]
