"""Packs opened with what the cold store alone has: copies of the keys and of the dictionaries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import SecretStr
from webhook.context.v1.pack_pb2 import Pack, SegmentKeys, SegmentMember
from webhook_shared.dictionaries.copies import Copies
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import (
    EnvelopeError,
    KeysDestroyed,
    Undecodable,
    UnknownDictionary,
    UnknownFormat,
    UnknownKey,
)
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKeys

from webhook_context.packs.archive import LARGE_PACK_BYTES
from webhook_context.packs.cold_names import KEYS_SUFFIX, SEGMENT, ColdNames
from webhook_context.packs.packing import Opened, Packer, checksum, tenant_of
from webhook_context.packs.segment import Place, keys_tenant, open_keys
from webhook_context.packs.segment import place_of as member_place
from webhook_context.tiers.inventory import place_of

KEYS_DESTROYED = "TENANT_KEYS_DESTROYED"
LARGE_AT_ONCE = 2
"""So many large packs are opened at once: each may hold 128 MiB."""


class Unusable(Exception):
    """An object that can't be used.

    Attributes:
        reason: Why: UPPER_SNAKE_CASE, without any content.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Found:
    """A verified pack of the cold store.

    Attributes:
        name: Of its object, or of its place in a segment.
        pointer: As a context has it.
        checksum: SHA-256 of its bytes, hex.
        stored_bytes: As it lies there.
    """

    name: str
    pointer: str
    opened: Opened
    checksum: str
    stored_bytes: int

    @property
    def pack(self) -> Pack:
        """What it holds."""
        return self.opened.pack


class FoundSegment(NamedTuple):
    """A segment whose keys open.

    Attributes:
        name: Of the object with the members.
        members: Those that were not forgotten.
    """

    name: str
    tenant: str
    members: Sequence[SegmentMember]

    def place(self, member: SegmentMember) -> Place:
        """Where one of them lies."""
        return member_place(self.name, member)


class Unsealing:
    """Opens objects for one run over the cold store.

    The keys of a tenant come from their copies and from Redis. Nothing is written, unless the run restores:
    then what Redis lacks of the keys is put back before anything that they have sealed.

    Args:
        client: Of the Redis that has the contexts.
        cold: Has the objects.
        names: Of them.
        master_key: Opens the copies.
        restores: Whether keys are put back.
    """

    def __init__(
        self,
        client: Client,
        cold: ObjectStore,
        names: ColdNames,
        master_key: MasterKeys | SecretStr,
        *,
        restores: bool,
    ) -> None:
        self._cold = cold
        self._names = names
        self._restores = restores
        self._copies = KeyCopies(cold, master_key)
        dictionaries = Dictionaries(client, copies=Copies(cold, master_key))
        self.keyring = Keyring(client, master_key, dictionaries)
        self._packer = Packer(self.keyring)
        self._known: dict[str, str] = {}
        self._one_at_a_time = asyncio.Lock()
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def found(self, name: str) -> Found:
        """What a name stands for.

        Raises:
            Unusable: With the reason.
            ObjectTrouble: The cold store can't be reached.
            REDIS_TROUBLE: Redis can't be.
        """
        try:
            return await self._read(name)
        except (Unusable, ObjectMissing):
            # What was damaged on the way comes whole the next time.
            pass
        try:
            return await self._read(name)
        except ObjectMissing:
            raise Unusable("OBJECT_MISSING") from None

    async def _read(self, name: str) -> Found:
        sealed = await self._cold.get(name)
        try:
            tenant = tenant_of(sealed)
        except EnvelopeError as error:
            raise Unusable(_reason(error, "NOT_A_PACK")) from None
        if not name.startswith(self._names.beginning(tenant)):
            raise Unusable("NAME_DIFFERS")
        if reason := await self._keys_at_hand(tenant):
            raise Unusable(reason)
        try:
            opened = await self._opened(tenant, sealed)
        except EnvelopeError as error:
            raise Unusable(_reason(error, "DAMAGED")) from None
        if place_of(name) != self._names.prefix(tenant, opened.pack.context_id):
            raise Unusable("NAME_DIFFERS")
        return Found(name, name, opened, checksum(sealed), len(sealed))

    async def segment(self, names: Sequence[str]) -> FoundSegment | None:
        """What the objects of a segment stand for; None where its members are gone.

        Raises:
            Unusable: With the reason.
            ObjectTrouble: The cold store can't be reached.
            REDIS_TROUBLE: Redis can't be.
        """
        home = place_of(names[0])
        if home + SEGMENT not in names:
            return None
        held = [await self._member_keys(home, name) for name in names if name.endswith(KEYS_SUFFIX)]
        usable = [one for one in held if isinstance(one, SegmentKeys)]
        if not usable:
            reasons = [one.reason for one in held if isinstance(one, Unusable)]
            raise Unusable(reasons[-1] if reasons else "SEGMENT_KEYS_MISSING")
        # Each time one is forgotten they are made anew: what is not in all of them has been forgotten.
        lasting = set.intersection(*({member.offset for member in one.members} for one in usable))
        members = [member for member in usable[0].members if member.offset in lasting]
        return FoundSegment(home + SEGMENT, usable[0].tenant, members)

    async def _member_keys(self, home: str, name: str) -> SegmentKeys | Unusable:
        try:
            sealed = await self._cold.get(name)
            tenant = keys_tenant(sealed)
            if not home.startswith(self._names.beginning(tenant)):
                return Unusable("NAME_DIFFERS")
            if reason := await self._keys_at_hand(tenant):
                return Unusable(reason)
            return open_keys(self.keyring, home, sealed)
        except ObjectMissing:
            return Unusable("SEGMENT_KEYS_MISSING")
        except EnvelopeError as error:
            return Unusable(_reason(error, "DAMAGED"))

    async def member(self, segment: FoundSegment, member: SegmentMember) -> Found:
        """A pack in a segment.

        Raises:
            Unusable: With the reason.
            ObjectTrouble: The cold store can't be reached.
            REDIS_TROUBLE: Redis can't be.
        """
        lies = segment.place(member)
        sealed = b""
        for _ in range(2):
            # What was damaged on the way comes whole the next time.
            try:
                sealed = lies.content(await self._cold.part(lies.segment, lies.offset, lies.length))
            except ObjectMissing:
                raise Unusable("OBJECT_MISSING") from None
            if checksum(sealed) == member.checksum:
                break
        else:
            raise Unusable("DAMAGED")
        try:
            opened = await self._opened(segment.tenant, sealed)
        except EnvelopeError as error:
            raise Unusable(_reason(error, "DAMAGED")) from None
        if opened.pack.context_id != member.context_id:
            raise Unusable("NAME_DIFFERS")
        return Found(str(lies), lies.pointer, opened, member.checksum, len(sealed))

    async def _opened(self, tenant: str, sealed: bytes) -> Opened:
        try:
            return await self._open(tenant, sealed)
        except UnknownDictionary:
            await self.keyring.dictionaries.recall(tenant, self.keyring)
            return await self._open(tenant, sealed)

    async def _open(self, tenant: str, sealed: bytes) -> Opened:
        if len(sealed) <= LARGE_PACK_BYTES:
            return self._packer.read(tenant, sealed)
        async with self._large:
            return await asyncio.to_thread(self._packer.read, tenant, sealed)

    async def _keys_at_hand(self, tenant: str) -> str:
        """Why a tenant's keys can't be had; empty where they are here."""
        async with self._one_at_a_time:
            if tenant not in self._known:
                self._known[tenant] = await self._look(tenant)
            return self._known[tenant]

    async def _look(self, tenant: str) -> str:
        try:
            await self.keyring.look(tenant)
            self.keyring.learn(tenant, await self._copies.entries(tenant))
            if not self.keyring.entries(tenant):
                return "KEY_MISSING"
            if self._restores:
                await self.keyring.prepare([tenant])
        except KeysDestroyed:
            return KEYS_DESTROYED
        return ""


def _reason(error: EnvelopeError, otherwise: str) -> str:
    if isinstance(error, UnknownFormat):
        return "FORMAT_UNKNOWN"
    if isinstance(error, UnknownDictionary):
        return "DICTIONARY_MISSING"
    if isinstance(error, UnknownKey):
        return "KEY_MISSING"
    return otherwise if isinstance(error, Undecodable) else "DAMAGED"
