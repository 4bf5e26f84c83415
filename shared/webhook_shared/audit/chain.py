"""The audit chain: entries that each hold the hash of the one before, and a sealed head that tells their end.

The hash of an entry covers its predecessor's hash, its place and its content, so no entry can be changed,
taken out, put in or moved without the next one telling. Who can write to the store could make every hash anew
from there on; the head, sealed with a key that is not in the store, tells that, and a cut-off end as well.

All processes append to the one chain: each makes its entries to follow the head that it has read, and one
script appends them only if that is still the head. What a record says is a matter of the contract, which is
handed in: `webhook.security.v1.audit_pb2`.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from pydantic import SecretStr

from webhook_shared.redis import Client, RedisError, Script
from webhook_shared.sealing.master_keys import MasterKeyMissing, MasterKeys, Purpose

STREAM = "webhook-audit"
HEAD = f"head:{{{STREAM}}}"
BEGINNING = bytes(32)
"""What the first entry has as the hash of the one before."""

_ATTEMPTS = 50
_HEAD = struct.Struct(">Q32sQ32s")
_SEAL_BYTES = 32


class Head(NamedTuple):
    """The two ends of the chain.

    Attributes:
        sequence: Of the last entry; 0 where there is none yet.
        hash: Of the last entry.
        base: The sequence of the last entry that was let go of; 0 where none was.
        base_hash: Its hash.
    """

    sequence: int = 0
    hash: bytes = BEGINNING
    base: int = 0
    base_hash: bytes = BEGINNING


class Contended(Exception):
    """Others kept appending; the entries were not."""


class Seal:
    """Proves that a head is ours.

    Args:
        master_key: The key is derived from it; of several, from the one that seals.
    """

    def __init__(self, master_key: MasterKeys | SecretStr) -> None:
        self._master_keys = MasterKeys.of(master_key)

    def sealed(self, head: Head) -> bytes:
        """The head as it is stored.

        Raises:
            RedisError: The master key that seals is not here; as bad as a store that can't be written.
        """
        packed = _HEAD.pack(*head)
        return packed + self._mac(self._sealing(), b"head", packed)

    def opened(self, stored: bytes) -> Head | None:
        """The head in these bytes; None where it is not ours."""
        packed, seal = stored[:-_SEAL_BYTES], stored[-_SEAL_BYTES:]
        if len(packed) != _HEAD.size:
            return None
        keys = [self._master_keys.key(one).subkey(Purpose.AUDIT_CHAIN) for one in self._master_keys.ids]
        if not any(hmac.compare_digest(seal, self._mac(key, b"head", packed)) for key in keys):
            return None
        return Head(*_HEAD.unpack(packed))

    def fingerprint(self, content: bytes) -> str:
        """Tells two contents apart, and nothing else of them; 16 hex characters."""
        return self._mac(self._sealing(), b"fingerprint", content).hex()[:16]

    def _sealing(self) -> bytes:
        try:
            return self._master_keys.sealing.subkey(Purpose.AUDIT_CHAIN)
        except MasterKeyMissing as error:
            raise RedisError(str(error)) from None

    @staticmethod
    def _mac(key: bytes, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(key, purpose + b"\0" + content, "sha256")


def link(previous_hash: bytes, sequence: int, content: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(previous_hash + sequence.to_bytes(8, "big") + content).digest()


class AuditChain:
    """The chain in one Redis.

    Args:
        client: Where.
        seal: Seals its head.
        most: Entries that are kept; the oldest go, and the head tells how far.
        contract: The module of the messages.
    """

    def __init__(self, client: Client, seal: Seal, *, most: int, contract: Any) -> None:
        self._client, self._seal, self._most, self.contract = client, seal, most, contract
        self._script = Script.load("webhook_shared", "audit_append")
        self._seen = 0

    async def append(self, records: Sequence[Any]) -> None:
        """Put records (AuditRecord) at the end, in order; their sequence is set here.

        A reply that is lost makes the caller append again: a record may stand twice, with the same number.

        Raises:
            Contended: Others were always faster.
            REDIS_TROUBLE, RedisError: The store is not there.
        """
        seen_by_store = 0
        for _ in range(_ATTEMPTS):
            stored = await self._stored()
            head = self._seal.opened(stored)
            start: list[Any] = []
            if head is None or head.sequence < max(self._seen, seen_by_store):
                head, start = await self._resumed(stored, head, seen_by_store)
            made = self._made(head, [*start, *records])
            new = await self._let_go(head._replace(sequence=made[-1].sequence, hash=made[-1].hash))
            args: list[bytes | int] = [stored, self._seal.sealed(new), new.base + 1]
            for entry in made:
                args += [entry.sequence, entry.previous_hash, entry.hash, entry.content]
            reply = await self._script(self._client, [STREAM, HEAD], args)
            if reply == 0:
                self._seen = new.sequence
                return
            seen_by_store = max(seen_by_store, reply)
        raise Contended

    async def _resumed(self, stored: bytes, head: Head | None, seen_by_store: int) -> tuple[Head, list[Any]]:
        """Where to go on where the head does not tell it, and the record that says so for good."""
        first: Any = await self._client.xrange(STREAM, count=1)
        last: Any = await self._client.xrevrange(STREAM, count=1)
        ends = [self._entry(*reply[0]) for reply in (first, last) if reply]
        expected = max(self._seen, seen_by_store, head.sequence if head else 0)
        record = self.contract.AuditRecord()
        record.time.GetCurrentTime()
        start = record.chain_start
        start.expected_sequence = expected = max([expected, *(entry.sequence for entry in ends)])
        if expected == 0 and not stored:
            start.reason = self.contract.AUDIT_CHAIN_START_REASON_NEW
            return Head(), [record]
        start.reason = (
            self.contract.AUDIT_CHAIN_START_REASON_SET_BACK
            if head or not (ends or stored)
            else self.contract.AUDIT_CHAIN_START_REASON_HEAD_INVALID
        )
        # What stands there is not written over: the chain goes on behind all that was ever seen.
        if not ends:
            return Head(expected, BEGINNING, expected, BEGINNING), [record]
        base = head or Head(base=ends[0].sequence - 1, base_hash=ends[0].previous_hash)
        return base._replace(sequence=expected, hash=ends[-1].hash), [record]

    def _made(self, head: Head, records: Sequence[Any]) -> list[Any]:
        made, previous = [], head.hash
        for sequence, record in enumerate(records, head.sequence + 1):
            record.sequence = sequence
            content = record.SerializeToString(deterministic=True)
            entry = self.contract.AuditEntry(
                sequence=sequence,
                previous_hash=previous,
                hash=link(previous, sequence, content),
                content=content,
            )
            made.append(entry)
            previous = entry.hash
        return made

    async def _let_go(self, head: Head) -> Head:
        """The head with a base that leaves no more entries than are to be kept, a tenth at a time."""
        if head.sequence - head.base <= self._most + self._most // 10:
            return head
        base = await self.entry(head.sequence - self._most)
        return head if base is None else head._replace(base=base.sequence, base_hash=base.hash)

    async def trim(self, through_sequence: int, entry_hash: bytes) -> int:
        """Let go of the oldest entries; how many went.

        Raises:
            LookupError: There is no such entry with that hash.
            Contended: Others were always faster.
        """
        entry = await self.entry(through_sequence)
        if entry is None or entry.hash != entry_hash:
            raise LookupError("there is no such entry")
        for _ in range(_ATTEMPTS):
            stored = await self._stored()
            head = self._seal.opened(stored)
            if head is None or through_sequence > head.sequence:
                raise LookupError("the head is not ours")
            if through_sequence <= head.base:
                return 0
            new = head._replace(base=through_sequence, base_hash=entry_hash)
            args = [stored, self._seal.sealed(new), new.base + 1]
            if await self._script(self._client, [STREAM, HEAD], args) == 0:
                return through_sequence - head.base
        raise Contended

    async def reseal(self) -> None:
        """Seal the head anew, where it is ours: after another master key began to seal.

        Raises:
            Contended: Others were always faster.
        """
        for _ in range(_ATTEMPTS):
            stored = await self._stored()
            head = self._seal.opened(stored)
            if head is None:
                return
            args = [stored, self._seal.sealed(head), head.base + 1]
            if await self._script(self._client, [STREAM, HEAD], args) == 0:
                return
        raise Contended

    async def entry(self, sequence: int) -> Any:
        """One AuditEntry; None where there is none."""
        found = await self.entries(after=sequence - 1, most=1)
        return found[0] if found and found[0].sequence == sequence else None

    async def entries(self, *, after: int, most: int) -> list[Any]:
        """Those (AuditEntry) that stand behind a place, oldest first, as they stand."""
        return [entry for _, entry in await self.places(f"{max(after, 0)}-18446744073709551615", most)]

    async def places(self, after: str, most: int) -> list[tuple[str, Any]]:
        """The same with the ids at which they stand, behind such an id or from "" on."""
        start = f"({after}" if after else "-"
        reply: Any = await self._client.xrange(STREAM, min=start, count=most)
        return [(place.decode(), self._entry(place, fields)) for place, fields in reply]

    async def head(self) -> Head | None:
        """The sealed head; None where there is none or it is not ours."""
        return self._seal.opened(await self._stored())

    async def _stored(self) -> bytes:
        stored: Any = await self._client.get(HEAD)
        return stored or b""

    def _entry(self, place: bytes, fields: dict[bytes, bytes]) -> Any:
        return self.contract.AuditEntry(
            sequence=int(place.partition(b"-")[0]),
            previous_hash=fields.get(b"previous", b""),
            hash=fields.get(b"hash", b""),
            content=fields.get(b"content", b""),
            record=self._record(fields.get(b"content", b"")),
        )

    def _record(self, content: bytes) -> Any:
        try:
            return self.contract.AuditRecord.FromString(content)
        except DecodeError:
            return self.contract.AuditRecord()
