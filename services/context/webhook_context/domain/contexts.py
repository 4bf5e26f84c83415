"""What a context is, and how it follows from its events.

A context is the sum of what its events say. Every statement carries the time from which it holds and the
id of whoever made it; of two statements about the same thing the later one stands. That makes the sum
independent of the order in which events arrive and of how often they do.

Events and enrichments are pure values without rules of their own, so the contract's messages serve as
their domain form.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.context.v1.context_pb2 import ContextEvent, Enrichment, Tier
from webhook.context.v1.context_service_pb2 import Append
from webhook_shared.errors import InvalidArgument

from webhook_context.domain.merge_patch import merged

T = TypeVar("T")

MOST_ACTORS = 50
MOST_LINKS = 200
MOST_LABELS = 100
LARGEST_ATTRIBUTES_BYTES = 64 * 1024
LONGEST_WORDS_CHARS = 4096
"""Of a title, URL, state, actor, label or link; what is longer is cut, as are links and labels beyond the
most."""

WORDS = ("tool", "kind", "title", "url", "state")
"""The statements that are one text each."""


class AsOf(NamedTuple):
    """From when a statement holds; the id decides between statements of the same microsecond."""

    time_us: int
    id: str


class Stated(NamedTuple, Generic[T]):
    """A value and from when it holds."""

    value: T
    as_of: AsOf


_UNSAID: Stated[tuple[str, ...]] = Stated((), AsOf(0, ""))


class Link(NamedTuple):
    """A tie to another context."""

    relation: str
    context_id: str


def event_as_of(event: ContextEvent) -> AsOf:
    """From when an event's statements hold: when it occurred, but never later than it came to us.

    A sender whose clock runs ahead could otherwise pin its words for ever.
    """
    occurred, received = _microseconds(event.occurred_time), _microseconds(event.received_time)
    return AsOf(min(occurred, received) if occurred and received else occurred or received, event.event_id)


def _microseconds(stamp: Timestamp) -> int:
    # 0 where there is none. By hand: this runs for every event that is written or read.
    return stamp.seconds * 1_000_000 + stamp.nanos // 1000


def edit_as_of(request_id: str) -> AsOf:
    """From when a person's words hold: from now, until something that happens later says otherwise."""
    return AsOf(time.time_ns() // 1000, f"edit:{request_id}")


@dataclass(slots=True)
class Facts:
    """What the events (and edits) of a context say together.

    Attributes:
        attributes: JSON that no event says anything of; only edits do. Replaced as a whole, never changed.
    """

    words: dict[str, Stated[str]] = field(default_factory=dict)
    labels: Stated[tuple[str, ...]] = _UNSAID
    actors: dict[str, AsOf] = field(default_factory=dict)
    links: dict[Link, AsOf] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def copied(self) -> Facts:
        """As it is now, whatever either learns from now on."""
        return Facts(
            dict(self.words), self.labels, dict(self.actors), dict(self.links), attributes=self.attributes
        )

    def learn(self, said: Append) -> None:
        """Take in one event, in any order."""
        event = said.event
        as_of = event_as_of(event)
        # In the order of WORDS; this runs for every event that is read.
        for name, value in zip(WORDS, (said.tool, said.kind, said.title, said.url, said.state), strict=True):
            if value:
                self.state(name, value, as_of)
        if labels := said.labels:
            self.label(labels[:MOST_LABELS], as_of)
        if actor := event.actor:
            _note(self.actors, actor[:LONGEST_WORDS_CHARS], as_of, MOST_ACTORS)
        if links := said.links:
            for link in links[:MOST_LINKS]:
                tie = Link(link.relation[:LONGEST_WORDS_CHARS], link.context_id[:LONGEST_WORDS_CHARS])
                _note(self.links, tie, as_of, MOST_LINKS)

    def state(self, name: str, value: str, as_of: AsOf) -> None:
        """One of WORDS is said to be this."""
        held = self.words.get(name)
        if held is None or as_of > held.as_of:
            self.words[name] = Stated(value[:LONGEST_WORDS_CHARS], as_of)

    def label(self, labels: Iterable[str], as_of: AsOf) -> None:
        """The labels are said to be these."""
        if as_of > self.labels.as_of:
            distinct = dict.fromkeys(label[:LONGEST_WORDS_CHARS] for label in labels)
            self.labels = Stated(tuple(distinct), as_of)

    def absorb(self, others: Facts) -> None:
        """Take in what was said elsewhere of the same thing, in any order; attributes stay as they are."""
        for name, stated in others.words.items():
            self.state(name, stated.value, stated.as_of)
        self.label(others.labels.value, others.labels.as_of)
        for actor, as_of in others.actors.items():
            _note(self.actors, actor, as_of, MOST_ACTORS)
        for link, as_of in others.links.items():
            _note(self.links, link, as_of, MOST_LINKS)

    def word(self, name: str) -> str:
        """What stands of one of WORDS; empty where nothing was said."""
        held = self.words.get(name)
        return held.value if held else ""

    def recent_actors(self) -> list[str]:
        """Who took part, the latest first."""
        return [actor for actor, _ in sorted(self.actors.items(), key=_by_recency)]

    def recent_links(self) -> list[Link]:
        """Ties to other contexts, the latest mentioned first."""
        return [link for link, _ in sorted(self.links.items(), key=_by_recency)]


K = TypeVar("K")


def _note(seen: dict[K, AsOf], thing: K, as_of: AsOf, most: int) -> None:
    held = seen.get(thing)
    if held is None or as_of > held:
        seen[thing] = as_of
    if len(seen) > most:
        # The oldest goes. It can only come back by being seen later, so the order of arrival still
        # makes no difference.
        del seen[min(seen.items(), key=lambda item: (item[1], item[0]))[0]]


def _by_recency(item: tuple[object, AsOf]) -> tuple[int, str, object]:
    thing, as_of = item
    return -as_of.time_us, as_of.id, thing


@dataclass(frozen=True, slots=True)
class Entry:
    """One event on its way into its context.

    Attributes:
        record: What is said, without payload and trace.
        payload: The body as received; may be empty.
        traceparent: Of the webhook that brought it; may be empty.
        replay_id: Of the replay that brings it again; may be empty.
    """

    tenant: str
    context_id: str
    event_id: str
    tool: str
    kind: str
    as_of: AsOf
    record: bytes
    payload: bytes
    traceparent: str = ""
    replay_id: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of an entry.

    Attributes:
        created: Whether it is the first event of its context.
        revived: Whether that context had been deleted.
        different: Whether it was there and says something else; known only in a rehearsal.
        unfolded: Events that the context's snapshot does not cover.
        epoch: Of the bout of dirtiness whose enrichment must be asked for; 0 where none must.
        packed: Whether the context is warm or cold; it wants to rise.
        stored_bytes: How many were added to what lies there.
    """

    duplicate: bool
    created: bool
    version: int
    update_ms: int
    unfolded: int
    epoch: int
    packed: bool
    revived: bool = False
    different: bool = False
    stored_bytes: int = 0


@dataclass(slots=True)
class Context:
    """A context as it was at one instant.

    Attributes:
        version: Counts up with every change.
        create_ms: Unix milliseconds; part of the etag, since a store that lost all counts from 1 again.
        importance: 0 to 1, copied from the enrichment for filters.
        dirty: Whether events came since the last enrichment.
        folded: How many events the stored snapshot covers.
        requests: The ids of the latest mutations, for repeated calls.
        facts: Shared with who else reads the context; `copied` by whoever changes them.
        events: The newest, in the order of arrival; as many as were asked for. Shared as well; they have
            no payloads in them.
        payloads: Of these events, empty for one that has none; none at all where they were not asked for.
        excerpt: Of a packed context read without its pack: the newest texts in it, oldest first.
        enrichment: With its vector only where that was asked for.
        tier: Where it lies.
        served: Where what is here was read.
        reads: Since it came to its tier; 0 for a hot one.
    """

    tenant: str
    context_id: str
    version: int
    create_ms: int
    update_ms: int
    event_count: int
    importance: float
    dirty: bool
    folded: int
    requests: str
    facts: Facts
    events: list[ContextEvent]
    payloads: list[bytes]
    enrichment: Enrichment | None
    tier: Tier.ValueType
    served: Tier.ValueType
    pinned: bool
    reads: int
    excerpt: list[str]

    @property
    def etag(self) -> str:
        """Names this version of this context."""
        return etag(self.version, self.create_ms)


def etag(version: int, create_ms: int) -> str:
    """The etag of a version."""
    return f"{version:x}-{create_ms:x}"


def parse_etag(text: str) -> tuple[str, str]:
    """Version and creation time, both in decimal; of anything else a pair that matches nothing."""
    version, _, create_ms = text.partition("-")
    try:
        return str(int(version, 16)), str(int(create_ms, 16))
    except ValueError:
        return "none", "none"


@dataclass(frozen=True, slots=True)
class Change:
    """What an update changes; None leaves a thing as it is.

    Attributes:
        etag: What the caller read; empty means whatever is there.
        request_id: A UUID, or empty.
        enrichment: Replaces the former one as a whole.
        patch: A JSON merge patch of title, labels, pinned and attributes.
    """

    tenant: str
    context_id: str
    etag: str = ""
    request_id: str = ""
    title: str | None = None
    labels: tuple[str, ...] | None = None
    pinned: bool | None = None
    enrichment: Enrichment | None = None
    patch: dict[str, Any] | None = None

    def names(self) -> list[str]:
        """What it changes, in the contract's words."""
        named = [
            name for name in ("title", "labels", "pinned", "enrichment") if getattr(self, name) is not None
        ]
        return named + list(self.patch or ())

    def revise(self, held: Context) -> Context:
        """Let a person's words stand in a context that was read for this.

        Raises:
            InvalidArgument: The attributes would get too large.
        """
        held.facts = facts = held.facts.copied()
        as_of = edit_as_of(self.request_id)
        title, labels, pinned = self.title, self.labels, self.pinned
        if self.patch is not None:
            given = merged({"attributes": facts.attributes}, self.patch)
            title = given.get("title", "") if "title" in self.patch else title
            labels = tuple(given.get("labels", ())) if "labels" in self.patch else labels
            pinned = given.get("pinned", False) if "pinned" in self.patch else pinned
            facts.attributes = _bounded(given.get("attributes", {}))
        if title is not None:
            facts.state("title", title, as_of)
        if labels is not None:
            facts.label(labels[:MOST_LABELS], as_of)
        if pinned is not None:
            held.pinned = pinned
        return held

    def made(self, revised: Context, version: int, update_ms: int, tier: Tier.ValueType) -> Context:
        """A revised context as it reads once the change is written."""
        revised.version, revised.update_ms, revised.folded = version, update_ms, revised.event_count
        if tier != revised.tier:
            revised.tier = revised.served = tier
        if self.enrichment is not None:
            revised.enrichment, revised.importance = Enrichment(), self.enrichment.importance
            revised.enrichment.CopyFrom(self.enrichment)
            revised.enrichment.ClearField("vector")
            revised.dirty = revised.dirty and not self.etag
        return revised


def _bounded(attributes: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(attributes, ensure_ascii=False).encode()) > LARGEST_ATTRIBUTES_BYTES:
        raise InvalidArgument(
            "attributes would be larger than 64 KiB",
            fields={"merge_patch_json": "makes attributes larger than 64 KiB"},
        )
    return attributes


@dataclass(frozen=True, slots=True)
class Filter:
    """Which contexts to show; empty parts do not filter, several values mean any of them."""

    tools: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    updated_after_ms: int | None = None
    updated_before_ms: int | None = None
    min_importance: float = 0.0
    tiers: frozenset[Tier.ValueType] = frozenset()

    def admits_outside(self, tool: str, kind: str, importance: float, tier: Tier.ValueType) -> bool:
        """Whether a context passes, as far as can be told without opening it."""
        return (
            (not self.tools or tool in self.tools)
            and (not self.kinds or kind in self.kinds)
            and (not self.tiers or tier in self.tiers)
            and importance >= self.min_importance
        )

    def admits(self, context: Context) -> bool:
        """Whether a context passes."""
        facts = context.facts
        return (
            self.admits_outside(facts.word("tool"), facts.word("kind"), context.importance, context.tier)
            and self.admits_labels(facts.labels.value)
            and self.admits_time(context.update_ms)
        )

    def admits_labels(self, labels: Iterable[str]) -> bool:
        """Whether one of the labels is wanted, or none in particular is."""
        return not self.labels or not self.labels.isdisjoint(labels)

    def admits_time(self, update_ms: int) -> bool:
        """Whether the last change lies between the bounds, both exclusive."""
        return (self.updated_after_ms is None or update_ms > self.updated_after_ms) and (
            self.updated_before_ms is None or update_ms < self.updated_before_ms
        )
