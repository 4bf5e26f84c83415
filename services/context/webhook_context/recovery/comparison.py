"""Whether Redis has all that an object of the cold store says.

Told by content: every event is looked for by its id, and what people said by hand is compared. Versions
alone tell nothing, since a Redis that lost all counts from 1 again, and one that came back from an older
backup counts on from there.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from webhook.context.v1.context_service_pb2 import Append
from webhook.context.v1.pack_pb2 import Pack, PackedEvent
from webhook_shared.errors import NotFound, ServiceError

from webhook_context.domain.contexts import Context, Entry, Facts, event_as_of
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.records import facts_of
from webhook_context.store.tiers_redis import RedisTiers

COMPARED_AT_ONCE = 500


class Standing(Enum):
    """How Redis stands to a pack."""

    ABSENT = "absent"
    """It has nothing of the context, not even that it was deleted."""
    DELETED = "deleted"
    WHOLE = "whole"
    """It has all that the pack says, and maybe more."""
    LACKING = "lacking"


@dataclass(frozen=True, slots=True)
class Comparison:
    """How Redis stands to a pack.

    Attributes:
        pointer: The object that the context in Redis points to; empty for none.
        missing: Events that it does not have.
        facts: What was said by hand and it does not have; None for nothing.
        unenriched: Whether the pack has an enrichment and it has none.
    """

    standing: Standing
    pointer: str = ""
    missing: Sequence[Entry] = field(default=())
    facts: Facts | None = None
    unenriched: bool = False


async def compare(store: RedisContexts, tiers: RedisTiers, pack: Pack) -> Comparison:
    """Look into Redis; nothing is written and nothing counts as read.

    Raises:
        ServiceError: CONTEXT_UNREADABLE; the context in Redis can't be opened.
        REDIS_TROUBLE: It is not known.
    """
    (state,) = await tiers.states(pack.tenant, [pack.context_id])
    if not state.exists:
        return Comparison(Standing.DELETED if state.version else Standing.ABSENT)
    try:
        missing = await _missing(store, pack)
        held = await store.read_one(pack.tenant, pack.context_id, View())
    except _Deleted:
        return Comparison(Standing.DELETED)
    except NotFound:
        return Comparison(Standing.DELETED)
    facts = _said_by_hand(held, pack, missing)
    standing = Standing.LACKING if missing or facts else Standing.WHOLE
    unenriched = held.enrichment is None and pack.HasField("enrichment")
    return Comparison(standing, state.pointer, missing, facts, unenriched)


class _Deleted(Exception):
    """The context has been deleted meanwhile."""


async def _missing(store: RedisContexts, pack: Pack) -> list[Entry]:
    missing = []
    for start in range(0, len(pack.events), COMPARED_AT_ONCE):
        entries = [_entry(pack, event) for event in pack.events[start : start + COMPARED_AT_ONCE]]
        for entry, foreseen in zip(entries, await store.foresee(entries), strict=True):
            if isinstance(foreseen, ServiceError):
                if foreseen.reason == "CONTEXT_DELETED":
                    raise _Deleted
                raise foreseen
            if not foreseen.duplicate:
                missing.append(entry)
    return missing


def _said_by_hand(held: Context, pack: Pack, missing: Sequence[Entry]) -> Facts | None:
    """What only the pack's facts have, once its events are there as well."""
    expected = copy.deepcopy(held.facts)
    for entry in missing:
        expected.learn(Append.FromString(entry.record))
    packed, whole = facts_of(pack.facts_json), copy.deepcopy(expected)
    whole.absorb(packed)
    # Attributes have no time of their own. Who went on from this pack has the last word; else what is there.
    went_on = held.create_ms == pack.create_ms and held.version >= pack.version
    if went_on or held.facts.attributes:
        packed.attributes = {}
    return packed if whole != expected or packed.attributes else None


def _entry(pack: Pack, packed: PackedEvent) -> Entry:
    said = Append.FromString(packed.record)
    return Entry(
        tenant=pack.tenant,
        context_id=pack.context_id,
        event_id=packed.event_id,
        tool=said.tool,
        kind=said.kind,
        as_of=event_as_of(said.event),
        record=packed.record,
        payload=packed.payload,
    )
