"""A directory of objects: for one machine, or a file system that all replicas share."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from webhook_shared.objects.protocol import MOST_NAMES, ObjectMissing, ObjectTrouble

_PART = ".part"
# No write takes so long: its writer was killed. Counted generously, for the clocks of file servers.
_ABANDONED_AFTER_S = 24 * 3600.0
_OPENING_ATTEMPTS = 100


class DirectoryObjectStore:
    """Each object is a file, complete and on the disk before it has its name.

    Args:
        root: Made where it is missing, with the first object.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, name: str, content: bytes) -> None:
        """See `ObjectStore`."""
        await self._in_thread(self._put, name, content)

    async def get(self, name: str) -> bytes:
        """See `ObjectStore`."""
        return await self._read(name, self._path(name).read_bytes)

    async def part(self, name: str, start: int, length: int) -> bytes:
        """See `ObjectStore`."""
        return await self._read(name, partial(_part, self._path(name), start, length))

    async def names(self, prefix: str, *, after: str = "", most: int = MOST_NAMES) -> list[str]:
        """See `ObjectStore`."""
        try:
            return await asyncio.to_thread(self._names, prefix, after, most)
        except OSError as error:
            raise ObjectTrouble(os.strerror(error.errno or 0)) from None

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        await self._in_thread(self._delete, name)

    async def _read(self, name: str, work: Callable[[], bytes]) -> bytes:
        try:
            return await asyncio.to_thread(work)
        except FileNotFoundError:
            if not self._root.is_dir():
                # Not mounted: that says nothing of what lies in it.
                raise ObjectTrouble("the directory is not there") from None
            raise ObjectMissing(name) from None
        except OSError as error:
            raise ObjectTrouble(os.strerror(error.errno or 0)) from None

    @staticmethod
    async def _in_thread(work: Callable[..., None], *args: str | bytes) -> None:
        try:
            await asyncio.to_thread(work, *args)
        except OSError as error:
            raise ObjectTrouble(os.strerror(error.errno or 0)) from None

    def _path(self, name: str) -> Path:
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise ObjectMissing(name)
        return path

    def _put(self, name: str, content: bytes) -> None:
        path = self._path(name)
        part = path.with_name(f".{secrets.token_hex(8)}{_PART}")
        made: list[Path] = []
        try:
            with _opened(part, made) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        # A name is durable when the directory that holds it is, up to the first that was there before.
        for directory in dict.fromkeys([path.parent, *(one.parent for one in made)]):
            _sync(directory)

    def _names(self, prefix: str, after: str, most: int) -> list[str]:
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the directory is not there")
        # The last part of a prefix may be the beginning of a name.
        folder, slash, _ = prefix.rpartition("/")
        every = _walk(self._path(folder), folder + slash, after)
        found = (name for name in every if name.startswith(prefix))
        return list(islice(found, most))

    def _delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise
            return
        below_root = [one for one in path.parents if self._root in one.parents]
        for folder in [*below_root, self._root]:
            if folder != self._root and _dropped(folder):
                continue
            # Where it is gone by now, somebody else has taken the last object out of it.
            with suppress(FileNotFoundError):
                _sync(folder)
                return


def _opened(part: Path, made: list[Path]) -> BinaryIO:
    """A new file, in a directory that others remove whenever nothing is in it; adds what had to be made."""
    for _ in range(_OPENING_ATTEMPTS):
        made += _made(part.parent)
        with suppress(FileNotFoundError):
            return part.open("xb")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _made(folder: Path) -> list[Path]:
    try:
        folder.mkdir()
    except FileExistsError:
        return []
    except FileNotFoundError:
        return _made(folder.parent) + _made(folder)
    return [folder]


def _dropped(folder: Path) -> bool:
    """Whether a directory was empty, and is gone now: each would cost every later listing a look."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _walk(folder: Path, beginning: str, after: str) -> Iterator[str]:
    """Names in order, only those behind one: a page costs what it holds, whatever lies before and behind.

    What killed writers have left is cleared away on the way.
    """
    try:
        with os.scandir(folder) as entries:
            # A directory stands where the names in it do.
            found = sorted(f"{one.name}/" if one.is_dir() else one.name for one in entries)
    except FileNotFoundError:
        return
    for one in found:
        name = beginning + one
        if one.endswith("/"):
            if name > after or after.startswith(name):
                yield from _walk(folder / one, name, after)
        elif one.endswith(_PART):
            _cleared(folder / one)
        elif name > after:
            yield name


def _cleared(part: Path) -> None:
    with suppress(OSError):
        if time.time() - part.stat().st_mtime > _ABANDONED_AFTER_S:
            part.unlink()


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
