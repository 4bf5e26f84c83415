"""Hot contexts into packs, and packs into what makes a context hot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from webhook.context.v1.pack_pb2 import Pack, PackedEvent
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import Undecodable
from webhook_shared.sealing.key_copies import KeyCopies

from webhook_context import errors
from webhook_context.domain.contexts import Context
from webhook_context.domain.excerpts import excerpt
from webhook_context.packs.packing import LARGEST_CONTENT_BYTES, Packed, Packer, digests
from webhook_context.store import keys
from webhook_context.store.assembly import Stored, View, assemble
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.records import Records, facts_json

EVERYTHING = View(events=2**31, payloads=True, vector=True)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A hot context, packed and verified.

    Attributes:
        version: That was packed.
        fields: What stays of it in the truth, beside what describes the pack.
    """

    packed: Packed
    version: int
    fields: Mapping[str, str | bytes | int]


class Bundler:
    """Makes packs of hot contexts, and of packs what makes a context hot."""

    def __init__(
        self,
        client: Client,
        store: RedisContexts,
        keyring: Keyring,
        packer: Packer,
        key_copies: KeyCopies,
    ) -> None:
        self._client = client
        self._store = store
        self._keyring = keyring
        self._records = Records(keyring)
        self._packer = packer
        self._key_copies = key_copies

    async def prepare(self, tenant: str) -> None:
        """Have the tenant's keys at hand.

        Raises:
            UnknownKey: They have been destroyed.
        """
        await self._keyring.prepare([tenant])

    async def copy_keys(self, tenant: str) -> None:
        """Let the cold store have what opens a tenant's packs, before it has one that needs it.

        Raises:
            UnknownKey: The keys have been destroyed.
            ObjectTrouble: It may not.
        """
        await self._key_copies.ensure(tenant, self._keyring)

    async def bundle(self, tenant: str, context_id: str, generation: int) -> Bundle:
        """Pack a hot context as it is now.

        Raises:
            ServiceError: CONTEXT_NOT_FOUND, TRANSITION_UNDER_WAY, CONTEXT_TOO_LARGE.
            EnvelopeError: A part of it is damaged.
        """
        (stored,) = await self._store.stored(tenant, [context_id], EVERYTHING)
        if not stored.exists:
            raise errors.not_found(context_id)
        if stored.fields["pointer"] is not None:
            raise errors.under_way(context_id)
        key = keys.revisions(tenant, context_id)
        revisions: Any = await self._client.lrange(key, 0, -1)
        await self.prepare(tenant)
        return await asyncio.to_thread(self._bundle, tenant, context_id, stored, generation, revisions)

    def unbundle(self, pack: Pack) -> list[tuple[str, bytes, bytes]]:
        """Id, sealed event, sealed payload or nothing; oldest first."""
        where = (pack.tenant, pack.context_id)
        return [
            (
                event.event_id,
                self._records.seal_record(*where, event.event_id, event.record),
                self._records.seal_payload(*where, event.event_id, event.payload, pack.tool)
                if event.payload
                else b"",
            )
            for event in pack.events
        ]

    def _bundle(
        self, tenant: str, context_id: str, stored: Stored, generation: int, revisions: list[bytes]
    ) -> Bundle:
        events = self._events(tenant, context_id, stored)
        held = assemble(self._records, tenant, context_id, stored._replace(payloads=()), EVERYTHING)
        pack = Pack(
            tenant=tenant,
            context_id=context_id,
            version=held.version,
            generation=generation,
            create_ms=held.create_ms,
            update_ms=held.update_ms,
            tool=stored.text("tool"),
            kind=stored.text("kind"),
            pinned=held.pinned,
            dirty=held.dirty,
            facts_json=facts_json(held.facts),
            events=events,
            revisions=[
                self._records.open_revision(tenant, context_id, one).SerializeToString() for one in revisions
            ],
        )
        if held.enrichment is not None:
            pack.vector_f16 = np.asarray(held.enrichment.vector, dtype="<f2").tobytes()
            pack.enrichment.CopyFrom(held.enrichment)
            pack.enrichment.ClearField("vector")
        packed = self._packer.pack(pack)
        if self._packer.open(tenant, context_id, packed.sealed) != pack:
            raise Undecodable("the pack does not open to what went in")
        return Bundle(packed, held.version, self._kept(held, [event.event_id for event in events]))

    def _events(self, tenant: str, context_id: str, stored: Stored) -> list[PackedEvent]:
        events, size = [], 0
        payloads = stored.payloads or [None] * len(stored.ids)
        for identity, sealed, payload in zip(stored.ids, stored.sealed, payloads, strict=True):
            event_id = identity.decode()
            event = PackedEvent(
                event_id=event_id, record=self._records.open_record(tenant, context_id, event_id, sealed)
            )
            if payload is not None:
                event.payload = self._records.open_payload(tenant, context_id, event_id, payload)
            size += len(event.record) + len(event.payload)
            if size > LARGEST_CONTENT_BYTES:
                raise errors.TooLarge(context_id)
            events.append(event)
        return events

    def _kept(self, held: Context, event_ids: list[str]) -> dict[str, str | bytes | int]:
        where = (held.tenant, held.context_id)
        return {
            "snapshot": self._records.seal_snapshot(*where, held.facts),
            "folded": held.event_count,
            "packed": held.event_count,
            "packed_version": held.version,
            "ids": digests(event_ids),
            "excerpt": self._records.seal_excerpt(*where, excerpt(held.events)),
        }
