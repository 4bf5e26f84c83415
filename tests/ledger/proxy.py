"""A line to Redis that can be slow, dead or cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 2**16
#: What Sentinels and replicas say when they come, and no client does.
SAID_BY_OTHERS = (b"sentinel-", b"__sentinel__", b"REPLCONF", b"PSYNC")


class Proxy:
    """Carries bytes between whoever connects to it and a server.

    Attributes:
        address: host:port to connect to.
        delay_s: Every piece arrives so much later, in both directions.
        is_dead: Bytes are taken and go nowhere, and connections stay open: what a lost route looks like.
        is_parted: So for Sentinels and replicas alone: clients are on the master's side of a parted network.
    """

    def __init__(self, port: int) -> None:
        self.address = ""
        self.delay_s = 0.0
        self.is_dead = False
        self.is_parted = False
        self._port = port
        self._lines: set[asyncio.StreamWriter] = set()
        self._others: set[asyncio.StreamWriter] = set()

    @property
    def is_carrying(self) -> bool:
        """Whether there are connections."""
        return bool(self._lines)

    def cut(self) -> None:
        """End every connection at once, with a reset."""
        for line in self._lines:
            line.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        try:
            answers, requests = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, requests}
        self._lines |= pair
        try:
            await asyncio.gather(self._pour(reader, requests, pair), self._pour(answers, writer, pair))
        finally:
            self._lines -= pair
            self._others -= pair
            for line in pair:
                line.close()

    async def _pour(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pair: set[asyncio.StreamWriter],
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(CHUNK_BYTES):
                if any(said in piece for said in SAID_BY_OTHERS):
                    self._others |= pair
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if not self.is_dead and not (self.is_parted and target in self._others):
                    target.write(piece)
                    await target.drain()
        target.close()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A line to a port of this machine, open while inside."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        while proxy.is_carrying:
            proxy.cut()
            await asyncio.sleep(0.01)
