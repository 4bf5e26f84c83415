"""Packs: a whole context in one sealed piece, the form in which it lies in the warm and the cold tier.

Layout: magic 4 | length of the tenant 2, big-endian | tenant, UTF-8 | pack id 16 | envelope. The envelope is
bound to the pack id and holds: codec 1 | dictionary id 8 | content size 8, big-endian | body; the body is a
serialised `webhook.context.v1.Pack`. So a pack tells who can open it, and once open, all the rest.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import zstandard
from google.protobuf.message import DecodeError
from webhook.context.v1.pack_pb2 import Pack
from webhook_shared import compression
from webhook_shared.dictionaries.samples import Samples
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import Undecodable, UnknownFormat

from webhook_context.errors import TooLarge

MAGIC = b"WHP1"
LARGEST_CONTENT_BYTES = 128 * 2**20
"""Of one context, uncompressed; what is larger stays hot."""
DIGEST_BYTES = 10
"""Of the SHA-1 of an event id; as in append.lua."""

Codec = Literal["zstd", "gzip", "none"]
_CODECS: dict[Codec, int] = {"none": 0, "zstd": 1, "gzip": 2}
_NAMES = {number: codec for codec, number in _CODECS.items()}
_HEAD = struct.Struct(">B8sQ")
_ID_BYTES = 16
# Readers refuse larger windows.
_WINDOW_LOG_MAX = 26


@dataclass(frozen=True, slots=True)
class Packed:
    """A sealed pack.

    Attributes:
        checksum: SHA-256 of the bytes, hex.
        content_size: Before compression, bytes.
    """

    sealed: bytes
    checksum: str
    codec: Codec
    content_size: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What a sealed pack holds.

    Attributes:
        content_size: Before compression, bytes.
    """

    pack: Pack
    codec: Codec
    content_size: int


class Packer:
    """Makes and opens packs; the tenants' keys must be prepared. Safe for concurrent use by threads.

    Args:
        keyring: Seals them.
        codec: How new packs are compressed; all codecs can always be read.
        level: Of the compression.
        samples: Get some of what is packed, to train dictionaries on; None where nothing is trained.
    """

    def __init__(
        self, keyring: Keyring, codec: Codec = "zstd", level: int = 6, samples: Samples | None = None
    ) -> None:
        self._keyring = keyring
        self._codec = codec
        self._level = level
        self._samples = samples

    def pack(self, pack: Pack) -> Packed:
        """Seal a pack.

        Raises:
            TooLarge: Above LARGEST_CONTENT_BYTES.
        """
        if pack.ByteSize() > LARGEST_CONTENT_BYTES:
            raise TooLarge(pack.context_id)
        content = pack.SerializeToString()
        if self._samples is not None:
            self._samples.offer(pack.tenant, pack.tool, content)
        body, dictionary = self._compressed(content, pack.tenant, pack.tool)
        head = _HEAD.pack(_CODECS[self._codec], dictionary, len(content))
        tenant, identity = pack.tenant.encode(), os.urandom(_ID_BYTES)
        envelope = self._keyring.seal(pack.tenant, head + body, "pack", identity.hex(), fresh=True)
        sealed = b"".join((MAGIC, len(tenant).to_bytes(2, "big"), tenant, identity, envelope))
        return Packed(sealed, checksum(sealed), self._codec, len(content))

    def open(self, tenant: str, context_id: str, sealed: bytes) -> Pack:
        """The pack of this context.

        Raises:
            EnvelopeError: It is damaged, of a newer version, or of another tenant or context.
        """
        pack = self.read(tenant, sealed).pack
        if pack.context_id != context_id:
            raise Undecodable("the pack of another context")
        return pack

    def read(self, tenant: str, sealed: bytes) -> Opened:
        """The pack of whichever of the tenant's contexts.

        Raises:
            EnvelopeError: It is damaged, of a newer version, or of another tenant.
        """
        identity, envelope = _parts(tenant, sealed)
        opened = self._keyring.open(tenant, envelope, "pack", identity.hex())
        content = self._content(tenant, opened)
        try:
            pack = Pack.FromString(content)
        except DecodeError:
            raise Undecodable("not a pack") from None
        if pack.tenant != tenant:
            raise Undecodable("the pack of another tenant")
        return Opened(pack, _NAMES[opened[0]], len(content))

    def _content(self, tenant: str, opened: bytes) -> bytes:
        codec, dictionary, size = _HEAD.unpack_from(opened)
        if size > LARGEST_CONTENT_BYTES:
            raise Undecodable("the content is too large")
        if codec == _CODECS["zstd"]:
            return self._keyring.inflate(tenant, opened[_HEAD.size :], dictionary, size)
        return _decompressed(opened[_HEAD.size :], codec, size)

    def _compressed(self, content: bytes, tenant: str, tool: str) -> tuple[bytes, bytes]:
        if self._codec == "none":
            return content, compression.NO_DICTIONARY
        if self._codec == "gzip":
            return gzip.compress(content, self._level, mtime=0), compression.NO_DICTIONARY
        dictionary = self._keyring.dictionaries.current(tenant, tool)
        parameters = zstandard.ZstdCompressionParameters.from_level(self._level, source_size=len(content))
        if parameters.window_log > _WINDOW_LOG_MAX:
            parameters = zstandard.ZstdCompressionParameters.from_level(
                self._level, source_size=len(content), window_log=_WINDOW_LOG_MAX
            )
        compressor = zstandard.ZstdCompressor(
            compression_params=parameters, dict_data=_raw(dictionary) if dictionary else None
        )
        return compressor.compress(content), dictionary.id if dictionary else compression.NO_DICTIONARY


@lru_cache(maxsize=compression.MOST_PREPARED)
def _raw(dictionary: compression.Dictionary) -> zstandard.ZstdCompressionDict:
    # The shared one is prepared for the events' level, and would impose it.
    return zstandard.ZstdCompressionDict(dictionary.content)


def tenant_of(sealed: bytes) -> str:
    """Whose pack it says to be.

    Raises:
        Undecodable: It is no pack.
        UnknownFormat: Of a newer version.
    """
    if sealed[:3] != MAGIC[:3]:
        raise Undecodable("not a pack")
    if sealed[:4] != MAGIC:
        raise UnknownFormat(f"pack of format {sealed[3:4]!r}")
    try:
        return sealed[6 : 6 + int.from_bytes(sealed[4:6], "big")].decode()
    except UnicodeDecodeError:
        raise Undecodable("not a pack") from None


def _parts(tenant: str, sealed: bytes) -> tuple[bytes, bytes]:
    if tenant_of(sealed) != tenant:
        raise Undecodable("the pack of another tenant")
    start = 6 + len(tenant.encode())
    return sealed[start : start + _ID_BYTES], sealed[start + _ID_BYTES :]


def _decompressed(body: bytes, codec: int, size: int) -> bytes:
    if codec == _CODECS["none"]:
        content = body
    elif codec == _CODECS["gzip"]:
        try:
            # One byte more than there should be would show, and no more than that is made.
            content = zlib.decompressobj(wbits=31).decompress(body, size + 1)
        except zlib.error:
            raise Undecodable("the body is damaged") from None
    else:
        raise UnknownFormat(f"codec {codec}")
    if len(content) != size:
        raise Undecodable("the body holds another size than its head says")
    return content


def checksum(sealed: bytes) -> str:
    """Of a pack's bytes: SHA-256, hex."""
    return hashlib.sha256(sealed).hexdigest()


def digests(event_ids: Iterable[str]) -> bytes:
    """What tells whether an event is in a pack, without the pack: DIGEST_BYTES per id."""
    return b"".join(
        hashlib.sha1(one.encode(), usedforsecurity=False).digest()[:DIGEST_BYTES] for one in event_ids
    )
