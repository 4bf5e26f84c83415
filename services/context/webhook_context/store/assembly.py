"""A context put together from its stored parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from webhook.context.v1.context_pb2 import Enrichment, Tier
from webhook.context.v1.context_service_pb2 import Append
from webhook.context.v1.pack_pb2 import Pack

from webhook_context.domain.contexts import Context, Facts
from webhook_context.domain.lifecycle import TIERS
from webhook_context.store.recollection import Recollection, marks_of
from webhook_context.store.records import Records

# As read.lua has them.
_FIELDS = (
    "version",
    "count",
    "folded",
    "created",
    "updated",
    "deleted",
    "tool",
    "kind",
    "importance",
    "dirty",
    "requests",
    "snapshot",
    "enrichment",
    "vector",
    "tier",
    "pinned",
    "pointer",
    "checksum",
    "excerpt",
    "reads",
    "packed",
    "source",
    "dropping",
    "accessed",
)


class View(NamedTuple):
    """How much of a context to read: how many of the newest events, and what of it.

    Attributes:
        unpacked: Whether an excerpt will do in place of what is packed, so that no pack is opened.
        used: Whether somebody takes an interest, which keeps the context from going down.
    """

    events: int = 0
    payloads: bool = False
    vector: bool = False
    unpacked: bool = False
    used: bool = False


class Stored(NamedTuple):
    """A reply of `read.lua`.

    Attributes:
        ids: Of the events that are not packed, as far as they are needed; oldest first.
        packed: How many events only the pack has.
        pack: Their pack where it is needed and in Redis.
    """

    fields: dict[str, bytes | None]
    ids: Sequence[bytes]
    sealed: Sequence[bytes]
    payloads: Sequence[bytes | None]
    packed: int
    pack: bytes | None

    @classmethod
    def of(cls, reply: Any) -> Stored:
        """A reply as it came."""
        fields, ids, sealed, payloads, packed, pack = reply
        return cls(dict(zip(_FIELDS, fields, strict=True)), ids, sealed, payloads, int(packed), pack)

    @property
    def exists(self) -> bool:
        """Whether there is such a context."""
        return self.fields["version"] is not None and self.fields["deleted"] is None

    @property
    def tier(self) -> Tier.ValueType:
        """Where it lies."""
        return TIERS[(self.fields["tier"] or b"hot").decode()]

    @property
    def at_hand(self) -> Tier.ValueType:
        """Where it can be read without its pack: for a while longer where it lay before."""
        return Tier.TIER_HOT if self.fields["source"] == b"hot" else self.tier

    def number(self, name: str) -> int:
        """A field that counts; 0 where it is missing."""
        return int(self.fields[name] or 0)

    def text(self, name: str) -> str:
        """A field that is text; empty where it is missing."""
        return (self.fields[name] or b"").decode()

    def wants_pack(self, view: View) -> bool:
        """Whether the view shows events that only the pack has."""
        return not view.unpacked and view.events > self.number("count") - self.packed and self.packed > 0


def assemble(
    records: Records,
    tenant: str,
    context_id: str,
    stored: Stored,
    view: View,
    *,
    pack: Pack | None = None,
    served: Tier.ValueType | None = None,
    recollection: Recollection | None = None,
) -> Context:
    """The context behind a reply of `read.lua`.

    Args:
        records: Opens what is sealed.
        tenant: Whose context.
        context_id: Which.
        stored: The reply.
        view: What was asked for.
        pack: Opened, where the view wants it.
        served: Where the pack was read, if it was.
        recollection: Saves opening events of which nothing but their facts is wanted.

    Raises:
        EnvelopeError: A part is not what was sealed there.
    """
    excerpt = stored.fields["excerpt"]
    event_count, folded_count = stored.number("count"), stored.number("folded")
    facts, said = _read(records, tenant, context_id, stored, newest=view.events, recollection=recollection)
    events = [one.event for one in said[-view.events :]] if view.events else []
    payloads = [
        records.open_payload(tenant, context_id, event.event_id, sealed) if sealed else b""
        for event, sealed in zip(events, stored.payloads, strict=bool(stored.payloads))
    ]
    if pack is not None:
        packed = pack.events[max(len(pack.events) + len(events) - view.events, 0) :]
        events = [Append.FromString(one.record).event for one in packed] + events
        payloads = [one.payload for one in packed] + payloads if view.payloads else []
    return Context(
        tenant=tenant,
        context_id=context_id,
        version=stored.number("version"),
        create_ms=stored.number("created"),
        update_ms=stored.number("updated"),
        event_count=event_count,
        importance=float(stored.fields["importance"] or 0),
        dirty=stored.fields["dirty"] is not None,
        folded=folded_count,
        requests=stored.text("requests"),
        facts=facts,
        events=events,
        payloads=payloads,
        enrichment=_enrichment(records, tenant, context_id, stored),
        tier=stored.tier,
        served=stored.at_hand if served is None else served,
        pinned=stored.text("pinned") == "1",
        reads=stored.number("reads"),
        excerpt=records.open_excerpt(tenant, context_id, excerpt) if excerpt and stored.packed else [],
    )


def _read(
    records: Records,
    tenant: str,
    context_id: str,
    stored: Stored,
    *,
    newest: int,
    recollection: Recollection | None,
) -> tuple[Facts, list[Append]]:
    """The facts of all events, and what the newest said: at least as many as asked for, where there are."""
    snapshot, held = stored.fields["snapshot"], list(zip(stored.ids, stored.sealed, strict=True))
    covered = max(len(held) - (stored.number("count") - stored.number("folded")), 0)
    marks = marks_of(snapshot, stored.sealed)
    unlearned = [marks[0], *marks[1 + covered :]]
    known = recollection.recall(tenant, context_id, unlearned) if recollection else None
    if known:
        facts, learned = known.facts, covered + known.learned
    else:
        facts, learned = records.open_snapshot(tenant, context_id, snapshot) if snapshot else Facts(), covered
    first = min(learned, max(len(held) - newest, 0))
    at_hand = known.newest if known else {}
    said = [
        at_hand.get(mark) or records.open_event(tenant, context_id, event_id.decode(), sealed)
        for mark, (event_id, sealed) in zip(marks[1 + first :], held[first:], strict=True)
    ]
    if new := said[learned - first :]:
        facts = facts.copied() if known else facts
        for one in new:
            facts.learn(one)
    if recollection and (learned < len(held) or not known):
        newer = dict(zip(marks[1 + first :], said, strict=True))
        recollection.remember(tenant, context_id, unlearned, facts, {**at_hand, **newer})
    return facts, said


def _enrichment(records: Records, tenant: str, context_id: str, stored: Stored) -> Enrichment | None:
    sealed, vector = stored.fields["enrichment"], stored.fields["vector"]
    if sealed is None:
        return None
    enrichment = records.open_enrichment(tenant, context_id, sealed)
    if vector is not None:
        dimension = enrichment.embedding_model.dimension
        enrichment.vector.extend(records.open_vector(tenant, context_id, vector, dimension))
    return enrichment
