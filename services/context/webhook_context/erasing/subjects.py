"""Taking a subject out of the contexts that know it: their events, and all that was made of them.

A context is looked at as a whole, in whatever tier it lies. Events that are by the subject or name it go, and
so does everything that may rest on them: the snapshot is made anew of the events that stay, summary and
vector are dropped and asked for again, edits by hand stay where they do not name the subject. Of a context
in which no other event stays nothing stays at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.context_service_pb2 import Append, Revision
from webhook_shared.errors import ServiceError
from webhook_shared.mentions import Name
from webhook_shared.objects.protocol import ObjectMissing, ObjectTrouble
from webhook_shared.redis import Client, Script
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError

from webhook_context.changes.feeds import Asked, Feeds, Touched
from webhook_context.domain.contexts import Facts
from webhook_context.erasing.contexts import COLD, COLD_STORE_UNREACHABLE, CONTEXTS, EVENTS, ErasingContexts
from webhook_context.erasing.tally import Tally
from webhook_context.finding.search import Search
from webhook_context.packs.archive import Archive
from webhook_context.store import keys
from webhook_context.store.assembly import Stored, View, assemble
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.records import Records, facts_json
from webhook_context.tiers.inventory import Inventory
from webhook_context.tiers.transitions import Transitions
from webhook_context.writing.erased_names import said_in

log = structlog.get_logger()

LOOKED_AT_ONCE = 8
ATTEMPTS = 10
UNREADABLE, CONTENDED = "UNREADABLE", "CONTENDED"
_EVERYTHING = View(events=2**31, payloads=True, vector=True)
_EDIT = "edit:"


@dataclass(frozen=True, slots=True)
class _Looked:
    """A context as it was looked at.

    Attributes:
        going: The ids of the events that are to go.
        staying: What the others say, in the order of arrival.
        revisions: Sealed, those that may stay; the newest first.
        named: Whether anything of it names the subject.
    """

    stored: Stored
    going: list[str]
    staying: list[Append]
    facts: Facts
    revisions: list[bytes]
    named: bool


class ErasingSubjects:
    """Takes subjects out of contexts.

    Args:
        client: Of the Redis that has them.
        keyring: Opens and seals.
        store: Has the contexts.
        archive: Has the events of those that are warm or cold.
        inventory: Tells where these lie.
        transitions: Brings those up, and drops what they leave behind.
        feeds: Tells others, and asks for enrichment.
        search: Finds them.
        whole: Erases those of which nothing stays.
    """

    def __init__(
        self,
        client: Client,
        keyring: Keyring,
        *,
        store: RedisContexts,
        archive: Archive,
        inventory: Inventory,
        transitions: Transitions,
        feeds: Feeds,
        search: Search,
        whole: ErasingContexts,
    ) -> None:
        self._client = client
        self._keyring = keyring
        self._records = Records(keyring)
        self._store = store
        self._archive = archive
        self._inventory = inventory
        self._transitions = transitions
        self._feeds = feeds
        self._search = search
        self._whole = whole
        self._expurgate = Script.load("webhook_context", "expurgate")

    async def all(
        self, tenant: str, name: Name, tally: Tally, *, since_ms: int, dry_run: bool
    ) -> AsyncIterator[list[str]]:
        """Take a subject out of every context that was changed since then.

        Yields:
            After each few contexts, the ids of the events that went, or in a dry run would.

        Raises:
            REDIS_TROUBLE: The rest has not been looked at.
        """
        async for ids in self._changed(tenant, since_ms):
            for start in range(0, len(ids), LOOKED_AT_ONCE):
                portion = ids[start : start + LOOKED_AT_ONCE]
                found = await asyncio.gather(
                    *(self.one(tenant, one, name, tally, dry_run=dry_run) for one in portion)
                )
                yield [event_id for gone in found for event_id in gone]

    async def _changed(self, tenant: str, since_ms: int) -> AsyncIterator[list[str]]:
        if since_ms:
            skip = 0
            while places := await self._store.newest(
                tenant, not_after_ms=None, not_before_ms=since_ms, skip=skip, most=1000
            ):
                skip += len(places)
                yield [place.context_id for place in places]
            return
        async for versions in self._store.versions(tenant):
            yield list(versions)

    async def one(
        self, tenant: str, context_id: str, name: Name, tally: Tally, *, dry_run: bool = False
    ) -> list[str]:
        """Take a subject out of one context; the ids of the events that went.

        Raises:
            REDIS_TROUBLE: It may have been taken out; to be repeated.
        """
        gone: list[str] = []
        lies: set[str] = set()
        try:
            for _ in range(ATTEMPTS):
                looked = await self._look(tenant, context_id, name)
                if looked is None or not looked.named:
                    return gone
                gone = looked.going
                if dry_run:
                    tally.erased(CONTEXTS, dry_run=True)
                    tally.erased(EVENTS, len(gone), dry_run=True)
                    return gone
                if gone and not looked.staying:
                    await self._whole.one(tenant, context_id, tally, dry_run=False)
                    return gone
                lies |= await self._inventory.names_of(tenant, context_id)
                if generation := await self._taken_out(tenant, context_id, looked):
                    tally.erased(CONTEXTS)
                    tally.erased(EVENTS, len(gone))
                    # The copies of former times have the subject in them.
                    await self._whole.drop_objects(
                        tenant, context_id, lies, tally, last_generation=generation
                    )
                    return gone
            tally.left(CONTEXTS, CONTENDED, 1)
        except ObjectTrouble:
            tally.left(COLD, COLD_STORE_UNREACHABLE, 1)
        except (EnvelopeError, ObjectMissing) as error:
            log.error("erasing.unreadable", context_id=context_id, error=type(error).__name__)
            tally.left(CONTEXTS, UNREADABLE, 1)
        return gone

    async def _look(self, tenant: str, context_id: str, name: Name) -> _Looked | None:
        (stored,) = await self._store.stored(tenant, [context_id], _EVERYTHING)
        if not stored.exists:
            return None
        await self._keyring.prepare([tenant])
        revisions: Any = await self._client.lrange(keys.revisions(tenant, context_id), 0, -1)
        pack = None
        if stored.wants_pack(_EVERYTHING):
            sealed, _ = await self._archive.find(stored.pack, stored.text("pointer"), stored.text("checksum"))
            pack = await self._archive.open(tenant, context_id, sealed)
        context = assemble(self._records, tenant, context_id, stored, _EVERYTHING, pack=pack)
        events = [(Append.FromString(one.record), one.payload) for one in (pack.events if pack else ())]
        for event_id, sealed, payload in zip(stored.ids, stored.sealed, stored.payloads, strict=True):
            one = event_id.decode()
            body = self._records.open_payload(tenant, context_id, one, payload) if payload else b""
            events.append((self._records.open_event(tenant, context_id, one, sealed), body))
        going, staying = [], []
        # Reading what strangers sent is computing: others go first now and then.
        await asyncio.sleep(0)
        for said, body in events:
            if _names(name, said, body):
                going.append(said.event.event_id)
            else:
                staying.append(said)
        kept = [one for one in revisions if not name.is_in(self._opened(tenant, context_id, one))]
        derived = [facts_json(context.facts)]
        if context.enrichment is not None:
            derived.append(context.enrichment.summary.encode())
            derived += [entity.value.encode() for entity in context.enrichment.entities]
        named = bool(going) or len(kept) < len(revisions) or any(map(name.is_in, derived))
        return _Looked(stored, going, staying, _without(context.facts, staying, name), kept, named)

    def _opened(self, tenant: str, context_id: str, sealed: bytes) -> bytes:
        revision: Revision = self._records.open_revision(tenant, context_id, sealed)
        said = (revision.title, *revision.labels, revision.attributes_json, revision.summary)
        return "\n".join(said).encode()

    async def _taken_out(self, tenant: str, context_id: str, looked: _Looked) -> int:
        """Up to which generation copies have the subject; 0 where the context is to be looked at again."""
        if looked.stored.tier != Tier.TIER_HOT:
            try:
                await self._transitions.move(tenant, context_id, Tier.TIER_HOT, grace_ms=0)
            except ServiceError as error:
                if error.reason == COLD_STORE_UNREACHABLE:
                    raise ObjectTrouble(error.reason) from None
                log.info("erasing.not_risen", reason=error.reason)
            return 0
        snapshot = self._records.seal_snapshot(tenant, context_id, looked.facts)
        version = looked.stored.number("version")
        where = [make(tenant, context_id) for make in (keys.context, keys.order, keys.packs, keys.revisions)]
        args = [version, snapshot, len(looked.going), *looked.going, *looked.revisions]
        outcome, now, generation = await self._expurgate(self._client, where, args)
        if outcome <= 0:
            # Gone is good as well: the next look says so.
            return 0
        touched = Touched(tenant, context_id, int(now))
        await self._feeds.publish([touched], [Asked(tenant, context_id, "")])
        await self._store.mark_queued([(tenant, context_id, int(now))])
        self._search.touch(touched)
        return int(generation)


def _names(name: Name, said: Append, body: bytes) -> bool:
    return any(map(name.is_in_text, said_in(said))) or bool(body and name.is_in(body))


def _without(held: Facts, staying: Sequence[Append], name: Name) -> Facts:
    """What the events that stay say, and people said by hand, as far as that does not name the subject."""
    facts = Facts()
    for said in staying:
        facts.learn(said)
    for word, stated in held.words.items():
        if stated.as_of.id.startswith(_EDIT) and not name.is_in_text(stated.value):
            facts.state(word, stated.value, stated.as_of)
    labels = held.labels
    if labels.as_of.id.startswith(_EDIT):
        facts.label([label for label in labels.value if not name.is_in_text(label)], labels.as_of)
    facts.attributes = {
        member: value
        for member, value in held.attributes.items()
        if not name.is_in(facts_json(Facts(attributes={member: value})))
    }
    return facts
