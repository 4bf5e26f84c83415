"""Segments: many small packs of one tenant in one object of the cold store.

Layout: `WHS1` | members | index | members in the index 4, big-endian | SHA-256 of the index 32 | `WHS1`.
A member is a sealed pack under a key of its own. An entry of the index: offset 8 | length 4 | digest of the
context 16, as in the names of objects | SHA-256 of the member 32. So a segment tells without any key what it
holds, and whether it is whole.

The members' keys lie in an object beside it, `WHM1` | length of the tenant 2 | tenant | envelope of a
`webhook.context.v1.SegmentKeys`, and in Redis in the pointers of the contexts. To forget a member is to make
that object anew without its key; its bytes go when the segment is rewritten.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError
from webhook.context.v1.pack_pb2 import SegmentKeys, SegmentMember
from webhook_shared.sealing.cloaks import MORE_BYTES, cloaked, uncloaked
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import Undecodable, UnknownFormat

from webhook_context.packs.packing import checksum

MAGIC = b"WHS1"
KEYS_MAGIC = b"WHM1"
MOST_MEMBERS = 1000
"""Of one segment, so that its keys and what a restore tells of it stay small."""
_ENTRY = struct.Struct(">QI16s32s")
_TRAILER = struct.Struct(">I32s4s")
_POINTER = re.compile(r"([^#]+)#(\d{1,12})\+(\d{1,10})(?:#([A-Za-z0-9_-]{43}))?")


class Place(NamedTuple):
    """Where a member lies.

    Attributes:
        segment: The name of the object.
        offset: In it, bytes.
        length: As it lies there, bytes.
        key: Opens it; empty where only the place is told.
    """

    segment: str
    offset: int
    length: int
    key: bytes = b""

    def __str__(self) -> str:
        """For people and lists: without the key."""
        return f"{self.segment}#{self.offset}+{self.length}"

    @property
    def pointer(self) -> str:
        """As a context has it."""
        return f"{self}#{base64.urlsafe_b64encode(self.key).decode().rstrip('=')}"

    def content(self, member: bytes) -> bytes:
        """The sealed pack; empty where these are not its bytes."""
        return uncloaked(self.key, member, _binding(self.segment, self.offset)) or b""


def place(pointer: str) -> Place | None:
    """The place that a pointer names; None for an object of its own."""
    match = _POINTER.fullmatch(pointer)
    if match is None:
        return None
    try:
        key = base64.urlsafe_b64decode(f"{match[4]}=") if match[4] else b""
    except binascii.Error:
        return None
    return Place(match[1], int(match[2]), int(match[3]), key)


class Packable(NamedTuple):
    """A sealed pack that may share an object with others.

    Attributes:
        digest: Of the context, 16 bytes.
    """

    context_id: str
    digest: bytes
    sealed: bytes

    @property
    def length(self) -> int:
        """As it will lie in a segment, bytes."""
        return len(self.sealed) + MORE_BYTES


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that is to be written.

    Attributes:
        content: Of the object.
        members: In the order of what was packed.
    """

    content: bytes
    members: Sequence[SegmentMember]


def build(name: str, packs: Iterable[Packable]) -> Built:
    """Lay packs out behind each other under keys of their own.

    Args:
        name: Of the segment.
        packs: MOST_MEMBERS at most.
    """
    parts, index, members, offset = [MAGIC], [], [], len(MAGIC)
    for pack in packs:
        key, body = cloaked(pack.sealed, _binding(name, offset))
        index.append(_ENTRY.pack(offset, len(body), pack.digest, hashlib.sha256(body).digest()))
        members.append(
            SegmentMember(
                context_id=pack.context_id,
                offset=offset,
                length=len(body),
                key=key,
                checksum=checksum(pack.sealed),
            )
        )
        parts.append(body)
        offset += len(body)
    entries = b"".join(index)
    trailer = _TRAILER.pack(len(index), hashlib.sha256(entries).digest(), MAGIC)
    return Built(b"".join((*parts, entries, trailer)), members)


class Indexed(NamedTuple):
    """What a segment says of a member.

    Attributes:
        digest: Of the context.
        whole: Whether its bytes are those that were written.
    """

    digest: bytes
    whole: bool


def index(content: bytes) -> dict[tuple[int, int], Indexed]:
    """What a segment says of itself, by offset and length.

    Raises:
        Undecodable: It is none, or not all of it.
        UnknownFormat: Of a newer version.
    """
    if content[:3] != MAGIC[:3] or len(content) < len(MAGIC) + _TRAILER.size:
        raise Undecodable("not a segment")
    if content[:4] != MAGIC:
        raise UnknownFormat(f"segment of format {content[3:4]!r}")
    count, digest, magic = _TRAILER.unpack_from(content, len(content) - _TRAILER.size)
    start = len(content) - _TRAILER.size - count * _ENTRY.size
    entries = content[max(start, 0) : len(content) - _TRAILER.size]
    if magic != MAGIC or start < len(MAGIC) or hashlib.sha256(entries).digest() != digest:
        raise Undecodable("the index is damaged")
    found = {}
    for offset, length, context, body in _ENTRY.iter_unpack(entries):
        whole = hashlib.sha256(content[offset : offset + length]).digest() == body
        found[offset, length] = Indexed(context, whole)
    return found


def seal_keys(keyring: Keyring, home: str, held: SegmentKeys) -> bytes:
    """The object beside a segment; the tenant's keys must be prepared.

    Args:
        keyring: Seals it.
        home: What the names of the segment's objects begin with.
        held: What goes into it.
    """
    tenant = held.tenant.encode()
    envelope = keyring.seal(held.tenant, held.SerializeToString(), "segment", home, fresh=True)
    return b"".join((KEYS_MAGIC, len(tenant).to_bytes(2, "big"), tenant, envelope))


def keys_tenant(sealed: bytes) -> str:
    """Whose keys these say to be.

    Raises:
        Undecodable: They are none.
        UnknownFormat: Of a newer version.
    """
    if sealed[:3] != KEYS_MAGIC[:3]:
        raise Undecodable("not the keys of a segment")
    if sealed[:4] != KEYS_MAGIC:
        raise UnknownFormat(f"keys of format {sealed[3:4]!r}")
    try:
        return sealed[6 : 6 + int.from_bytes(sealed[4:6], "big")].decode()
    except UnicodeDecodeError:
        raise Undecodable("not the keys of a segment") from None


def open_keys(keyring: Keyring, home: str, sealed: bytes) -> SegmentKeys:
    """What an object beside a segment holds.

    Raises:
        EnvelopeError: It is damaged, of a newer version, or of another segment.
    """
    tenant = keys_tenant(sealed)
    content = keyring.open(tenant, sealed[6 + len(tenant.encode()) :], "segment", home)
    try:
        held = SegmentKeys.FromString(content)
    except DecodeError:
        raise Undecodable("not the keys of a segment") from None
    if held.tenant != tenant:
        raise Undecodable("the keys of another tenant")
    return held


def place_of(name: str, member: SegmentMember) -> Place:
    """Where a member of the segment of that name lies."""
    return Place(name, member.offset, member.length, member.key)


def _binding(name: str, offset: int) -> str:
    return f"{name}#{offset}"
