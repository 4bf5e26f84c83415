"""A directory as cold store: for one machine, or a file system that all replicas share."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from webhook_context.cold import ColdMissing, ColdTrouble


class DirectoryColdStore:
    """Each object is a file, complete and on the disk before it has its name.

    Args:
        root: Made where it is missing, with the first object.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, name: str, content: bytes) -> None:
        """See `ColdStore`."""
        await self._in_thread(self._put, name, content)

    async def get(self, name: str) -> bytes:
        """See `ColdStore`."""
        try:
            return await asyncio.to_thread(self._path(name).read_bytes)
        except FileNotFoundError:
            if not self._root.is_dir():
                # Not mounted: that says nothing of what lies in it.
                raise ColdTrouble("the directory is not there") from None
            raise ColdMissing(name) from None
        except OSError as error:
            raise ColdTrouble(os.strerror(error.errno or 0)) from None

    async def delete(self, name: str) -> None:
        """See `ColdStore`."""
        await self._in_thread(self._delete, name)

    @staticmethod
    async def _in_thread(work: Callable[..., None], *args: str | bytes) -> None:
        try:
            await asyncio.to_thread(work, *args)
        except OSError as error:
            raise ColdTrouble(os.strerror(error.errno or 0)) from None

    def _path(self, name: str) -> Path:
        path = self._root / name
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise ColdMissing(name)
        return path

    def _put(self, name: str, content: bytes) -> None:
        path = self._path(name)
        made = [parent for parent in (path.parent, *path.parent.parents) if not parent.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
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

    def _delete(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            if not self._root.is_dir():
                raise
            return
        _sync(path.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
