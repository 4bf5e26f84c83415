"""zstd with dictionaries that are content-addressed and never change.

A dictionary lies in `dictionaries/` as `<name>-<generation>-<id>.zdict`, where `<id>` is the first
16 hex digits of the SHA-256 of its bytes. New data uses the highest generation of a name; data that was
made with an older one finds it by id, so a file may never be removed.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

import zstandard

LEVEL = 3
QUICK_LEVEL = 1
"""For what does not live long: a third quicker on GitHub's events, which become a twentieth larger."""
# Below this nothing is gained.
SMALLEST_BYTES = 64
NO_DICTIONARY = bytes(8)
_WINDOW_LOG_MAX = 26


class CompressionError(ValueError):
    """Bytes that are not what we compressed."""


@dataclass(frozen=True)
class Dictionary:
    """A trained dictionary.

    Attributes:
        name: What it was trained on: "github".
        generation: Counts up with each training.
        id: 8 bytes, from its content.
    """

    name: str
    generation: int
    id: bytes
    data: zstandard.ZstdCompressionDict = field(repr=False, compare=False)


@cache
def _dictionaries() -> dict[bytes, Dictionary]:
    found: dict[bytes, Dictionary] = {}
    for file in (files("webhook_shared") / "dictionaries").iterdir():
        if not file.name.endswith(".zdict"):
            continue
        name, generation, digest = file.name.removesuffix(".zdict").rsplit("-", 2)
        content = file.read_bytes()
        identity = hashlib.sha256(content).digest()[:8]
        if identity.hex() != digest:
            raise CompressionError(f"dictionary {file.name} has been changed")
        data = zstandard.ZstdCompressionDict(content)
        found[identity] = Dictionary(name, int(generation), identity, data)
    return found


@cache
def dictionary_for(name: str) -> Dictionary | None:
    """The newest dictionary of a name, or None."""
    named = [entry for entry in _dictionaries().values() if entry.name == name]
    return max(named, key=lambda entry: entry.generation, default=None)


class _Workspace(threading.local):
    """zstd contexts are costly to make and must not be shared between threads."""

    def __init__(self) -> None:
        self.compressors: dict[tuple[bytes, int], zstandard.ZstdCompressor] = {}
        self.decompressors: dict[bytes, zstandard.ZstdDecompressor] = {}


_workspace = _Workspace()


def compress(content: bytes, dictionary: str = "", *, level: int = LEVEL) -> tuple[bytes, bytes] | None:
    """Compress, with the newest dictionary of that name if there is one.

    Returns:
        The frame and the id of the dictionary (zeros for none), or None where nothing is gained.
    """
    if len(content) < SMALLEST_BYTES:
        return None
    entry = dictionary_for(dictionary) if dictionary else None
    identity = entry.id if entry else NO_DICTIONARY
    compressor = _workspace.compressors.get((identity, level))
    if compressor is None:
        compressor = _workspace.compressors[identity, level] = _compressor(entry, level)
    frame = compressor.compress(content)
    return (frame, identity) if len(frame) < len(content) else None


def _compressor(entry: Dictionary | None, level: int) -> zstandard.ZstdCompressor:
    data = None
    if entry:
        # What is computed from a dictionary serves one level only.
        data = zstandard.ZstdCompressionDict(entry.data.as_bytes())
        data.precompute_compress(level=level)
    return zstandard.ZstdCompressor(level=level, dict_data=data, write_checksum=False, write_dict_id=False)


def decompress(frame: bytes, identity: bytes, size_bytes: int) -> bytes:
    """The content of a frame, which must be exactly of that size.

    Raises:
        CompressionError: Damaged, larger than said, or made with a dictionary that we don't have.
    """
    decompressor = _workspace.decompressors.get(identity)
    if decompressor is None:
        decompressor = _workspace.decompressors[identity] = _decompressor(identity)
    try:
        if zstandard.frame_content_size(frame) != size_bytes:
            raise CompressionError("the frame says another size than its header")
        content: bytes = decompressor.decompress(frame, max_output_size=size_bytes)
    except zstandard.ZstdError:
        raise CompressionError("the frame is damaged") from None
    if len(content) != size_bytes:
        raise CompressionError("the frame holds another size than its header says")
    return content


def _decompressor(identity: bytes) -> zstandard.ZstdDecompressor:
    entry = _dictionaries().get(identity)
    if entry is None and identity != NO_DICTIONARY:
        raise CompressionError(f"dictionary {identity.hex()} is not here")
    return zstandard.ZstdDecompressor(
        dict_data=entry.data if entry else None, max_window_size=1 << _WINDOW_LOG_MAX
    )
