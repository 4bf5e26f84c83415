"""A process that dies at a chosen step: everything that it does outside goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from webhook_shared.objects.protocol import MOST_NAMES, ObjectStore, ObjectTrouble

T = TypeVar("T")

BEFORE, TORN, AFTER = "before", "torn", "after"
WAYS = (BEFORE, TORN, AFTER)


class Doom:
    """Kills at a step: before it has its effect, in the middle of the request, or before its answer comes."""

    def __init__(self) -> None:
        self._left = -1
        self._way = ""
        self.dead = False
        self.steps = 0

    def revive(self, *, at: int = -1, way: str = "") -> None:
        """Live again, until the step of that number; for ever without one."""
        self._left, self._way, self.dead, self.steps = at, way, False, 0

    def strikes(self) -> str:
        """The way of dying at this step; empty where it is another one."""
        self.steps += 1
        self._left -= 1
        if self._left != -1 or self.dead:
            return ""
        self.dead = True
        return self._way


class DoomedStore:
    """A cold store as a dying process sees it."""

    def __init__(self, store: ObjectStore, doom: Doom) -> None:
        self._store = store
        self._doom = doom

    async def put(self, name: str, content: bytes) -> None:
        await self._step(lambda: self._store.put(name, content))

    async def get(self, name: str) -> bytes:
        return await self._step(lambda: self._store.get(name))

    async def part(self, name: str, start: int, length: int) -> bytes:
        return await self._step(lambda: self._store.part(name, start, length))

    async def names(self, prefix: str, *, after: str = "", most: int = MOST_NAMES) -> list[str]:
        return await self._step(lambda: self._store.names(prefix, after=after, most=most))

    async def delete(self, name: str) -> None:
        await self._step(lambda: self._store.delete(name))

    async def _step(self, work: Callable[[], Awaitable[T]]) -> T:
        if self._doom.dead:
            raise ObjectTrouble("dead")
        way = self._doom.strikes()
        if not way:
            return await work()
        if way == AFTER:
            await work()
        raise ObjectTrouble("dead")


@asynccontextmanager
async def doomed_redis(port: int, doom: Doom) -> AsyncIterator[int]:
    """A port that leads to a server until the process dies; each request is a step."""
    lines: set[asyncio.StreamWriter] = set()

    async def carry(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        if doom.dead:
            answers.close()
            return
        server, requests = await asyncio.open_connection("127.0.0.1", port)
        lines.update((answers, requests))
        try:
            while (request := await client.read(2**20)) and not doom.dead:
                way = doom.strikes()
                if way:
                    requests.write({BEFORE: b"", TORN: request[: len(request) // 2], AFTER: request}[way])
                    await requests.drain()
                    if way == AFTER:
                        await server.read(2**16)
                    break
                requests.write(request)
                answers.write(await server.read(2**20))
        finally:
            answers.close()
            requests.close()

    async def carried(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await carry(client, answers)

    listening = await asyncio.start_server(carried, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        for line in lines:
            line.close()
        listening.close()
