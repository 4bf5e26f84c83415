"""zstd with dictionaries that are content-addressed and never change.

A dictionary is named by the first 8 bytes of the SHA-256 of its bytes, and whatever was compressed with it
says that name. Some are shipped, in `dictionaries/shipped/` as `<name>-<generation>-<id>.zdict`; others are
trained on what comes in (`webhook_shared.dictionaries.store`). Neither kind may ever be removed while
something is left that was made with it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TypeVar

import zstandard

LEVEL = 3
QUICK_LEVEL = 1
"""For what does not live long: a third quicker on GitHub's events, which become a twentieth larger."""
# Below this nothing is gained.
SMALLEST_BYTES = 64
ID_BYTES = 8
NO_DICTIONARY = bytes(ID_BYTES)
# Of compressors and of decompressors, per thread; each holds the tables of one dictionary.
MOST_PREPARED = 64
_WINDOW_LOG_MAX = 26

Decompressor = zstandard.ZstdDecompressor

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")


class CompressionError(ValueError):
    """Bytes that are not what we compressed."""


class DictionaryMissing(CompressionError):
    """Compressed with a dictionary that is not known here (yet)."""


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

    @classmethod
    def of(cls, name: str, generation: int, content: bytes) -> Dictionary:
        """From its bytes."""
        return cls(name, generation, identity(content), zstandard.ZstdCompressionDict(content))

    @property
    def content(self) -> bytes:
        """Its bytes."""
        made: bytes = self.data.as_bytes()
        return made


def identity(content: bytes) -> bytes:
    """What a dictionary of these bytes is called: 8 bytes."""
    return hashlib.sha256(content).digest()[:ID_BYTES]


@cache
def _known() -> dict[bytes, Dictionary]:
    """Every dictionary that this process can read with; begins with those that are shipped."""
    found: dict[bytes, Dictionary] = {}
    for file in (files("webhook_shared") / "dictionaries" / "shipped").iterdir():
        if not file.name.endswith(".zdict"):
            continue
        name, generation, digest = file.name.removesuffix(".zdict").rsplit("-", 2)
        entry = Dictionary.of(name, int(generation), file.read_bytes())
        if entry.id.hex() != digest:
            raise CompressionError(f"dictionary {file.name} has been changed")
        found[entry.id] = entry
    return found


@cache
def all_shipped() -> Sequence[Dictionary]:
    """Every dictionary that came with the software, in order of name and generation."""
    return sorted(_known().values(), key=lambda entry: (entry.name, entry.generation))


@cache
def _newest() -> dict[str, Dictionary]:
    return {entry.name: entry for entry in all_shipped()}


def shipped(name: str) -> Dictionary | None:
    """The newest dictionary of a name that came with the software, or None."""
    return _newest().get(name)


def known(one: bytes) -> Dictionary | None:
    """The dictionary of this id, if this process can read with it."""
    return _known().get(one)


def learn(entry: Dictionary) -> None:
    """Read with this dictionary, too, from now on. For every tenant: its id says what is in it."""
    # What is shipped must be told apart before anything else is known.
    all_shipped()
    _known().setdefault(entry.id, entry)


class _Workspace(threading.local):
    """zstd contexts are costly to make and must not be shared between threads."""

    def __init__(self) -> None:
        self.compressors: dict[tuple[bytes, int], zstandard.ZstdCompressor] = {}
        self.decompressors: dict[bytes, Decompressor] = {}


_workspace = _Workspace()


def compress(
    content: bytes, dictionary: Dictionary | None = None, *, level: int = LEVEL
) -> tuple[bytes, bytes] | None:
    """Compress, with a dictionary if there is one.

    Returns:
        The frame and the id of the dictionary (zeros for none), or None where nothing is gained.
    """
    if len(content) < SMALLEST_BYTES:
        return None
    one = dictionary.id if dictionary else NO_DICTIONARY
    compressor = _workspace.compressors.get((one, level))
    if compressor is None:
        compressor = _kept(_workspace.compressors, (one, level), lambda: _compressor(dictionary, level))
    frame = compressor.compress(content)
    return (frame, one) if len(frame) < len(content) else None


def _compressor(entry: Dictionary | None, level: int) -> zstandard.ZstdCompressor:
    data = None
    if entry:
        # What is computed from a dictionary serves one level only.
        data = zstandard.ZstdCompressionDict(entry.content)
        data.precompute_compress(level=level)
    return zstandard.ZstdCompressor(level=level, dict_data=data, write_checksum=False, write_dict_id=False)


def decompress(frame: bytes, one: bytes, size_bytes: int) -> bytes:
    """The content of a frame, which must be exactly of that size; no more than that is ever made.

    Args:
        frame: As `compress` made it.
        one: The id of its dictionary.
        size_bytes: Of the content.

    Raises:
        DictionaryMissing: Made with a dictionary that we don't have.
        CompressionError: Damaged, or larger than said.
    """
    return inflate(decompressor(one), frame, size_bytes)


def inflate(one: Decompressor, frame: bytes, size_bytes: int) -> bytes:
    """As `decompress`, given what reads the frames of a dictionary in this thread."""
    try:
        # Never more than a frame says of itself is made.
        if zstandard.frame_content_size(frame) != size_bytes:
            raise CompressionError("the frame says another size than its header")
        content: bytes = one.decompress(frame)
    except zstandard.ZstdError:
        raise CompressionError("the frame is damaged") from None
    if len(content) != size_bytes:
        raise CompressionError("the frame holds another size than its header says")
    return content


def decompressor(one: bytes) -> Decompressor:
    """What reads the frames of a dictionary, by its id, in this thread.

    Raises:
        DictionaryMissing: We don't have it.
    """
    found = _workspace.decompressors.get(one)
    return found or _kept(_workspace.decompressors, one, lambda: _decompressor(one))


def _decompressor(one: bytes) -> Decompressor:
    entry = known(one)
    if entry is None and one != NO_DICTIONARY:
        raise DictionaryMissing(f"dictionary {one.hex()} is not here")
    return zstandard.ZstdDecompressor(
        dict_data=entry.data if entry else None, max_window_size=1 << _WINDOW_LOG_MAX
    )


def _kept(prepared: dict[_Key, _Made], key: _Key, make: Callable[[], _Made]) -> _Made:
    made = make()
    if len(prepared) >= MOST_PREPARED:
        # The one that was made first; making it again takes a tenth of a millisecond.
        del prepared[next(iter(prepared))]
    prepared[key] = made
    return made
