"""A directory of objects: for one machine, or a file system that all replicas share."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from webhook_shared.objects import MOST_NAMES, ObjectMissing, ObjectTrouble

_PART = ".part"


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
        try:
            return await asyncio.to_thread(self._path(name).read_bytes)
        except FileNotFoundError:
            if not self._root.is_dir():
                # Not mounted: that says nothing of what lies in it.
                raise ObjectTrouble("the directory is not there") from None
            raise ObjectMissing(name) from None
        except OSError as error:
            raise ObjectTrouble(os.strerror(error.errno or 0)) from None

    async def names(self, prefix: str, *, after: str = "", most: int = MOST_NAMES) -> list[str]:
        """See `ObjectStore`."""
        try:
            found = await asyncio.to_thread(self._names, prefix, after)
        except OSError as error:
            raise ObjectTrouble(os.strerror(error.errno or 0)) from None
        return found[:most]

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        await self._in_thread(self._delete, name)

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
        made = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(8)}{_PART}")
        try:
            with part.open("xb") as file:
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

    def _names(self, prefix: str, after: str) -> list[str]:
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the directory is not there")
        # The last part of a prefix may be the beginning of a name.
        top = self._path(prefix).parent if not prefix.endswith("/") else self._path(prefix)
        found = [
            (Path(folder) / file).relative_to(self._root).as_posix()
            for folder, _, files in os.walk(top, onerror=_unless_missing)
            for file in files
            if not file.endswith(_PART)
        ]
        return sorted(name for name in found if name.startswith(prefix) and name > after)

    def _delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise
            return
        _sync(path.parent)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
