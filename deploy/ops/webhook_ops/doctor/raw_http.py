"""HTTP by hand, so that the doctor decides about every byte that goes out."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

Headers = Iterable[tuple[str, str | bytes]]

_HEAD_LIMIT_BYTES = 64 * 1024
_BODY_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: Names in lower case.
        seconds: From the first byte sent.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class NoAnswerError(Exception):
    """The connection was refused, or ended without an answer."""


@dataclass(frozen=True)
class Edge:
    """An HTTP edge.

    Attributes:
        url: Without a slash at its end.
        context: Whom to believe where it is https.
    """

    url: str
    context: ssl.SSLContext

    @property
    def authority(self) -> str:
        """host:port, as a Host header has it."""
        return urlsplit(self.url).netloc

    async def exchange(self, *parts: bytes, within_s: float, pause_s: float = 0.0) -> Answer:
        """Send bytes on a connection of their own and read one answer.

        Args:
            parts: In order, `pause_s` seconds apart; the answer may come before all are sent.
            within_s: Most time for all of it.
            pause_s: Between two parts.

        Raises:
            NoAnswerError: There was none.
            TimeoutError: None in that time.
        """

        async def paused() -> AsyncIterable[bytes]:
            for number, part in enumerate(parts):
                if number:
                    await asyncio.sleep(pause_s)
                yield part

        return await self.stream(paused(), within_s=within_s)

    async def stream(self, parts: AsyncIterable[bytes], *, within_s: float) -> Answer:
        """The same for parts that come into being as they are sent."""
        split = urlsplit(self.url)
        secure = split.scheme == "https"
        started_s = time.perf_counter()
        async with asyncio.timeout(within_s):
            try:
                reader, writer = await asyncio.open_connection(
                    split.hostname,
                    split.port or (443 if secure else 80),
                    ssl=self.context if secure else None,
                    limit=_HEAD_LIMIT_BYTES,
                )
            except OSError as error:
                raise NoAnswerError(f"no connection ({type(error).__name__})") from None
            sending = asyncio.create_task(_send(writer, parts))
            try:
                status, headers, body = await _read(reader)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
        return Answer(status, headers, body, time.perf_counter() - started_s)


def head(target: bytes, headers: Headers, *, host: str, method: str = "POST") -> bytes:
    """Request line and headers, with the empty line that ends them."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: " + host.encode()]
    lines += [name.encode() + b": " + _bytes(value) for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


async def _send(writer: asyncio.StreamWriter, parts: AsyncIterable[bytes]) -> None:
    # Who has answered may close before everything is sent; the answer is what counts.
    with contextlib.suppress(OSError):
        async for part in parts:
            writer.write(part)
            await writer.drain()
            # `drain` gives way only when the buffer is full; an answer is to be read before more is sent,
            # for the reset that meets what comes after a close takes an unread answer with it.
            await asyncio.sleep(0)


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    try:
        status, headers = await _read_head(reader)
        while status < 200:
            status, headers = await _read_head(reader)
        length = headers.get("content-length", "")
        body = await reader.read(min(int(length), _BODY_LIMIT_BYTES)) if length.isdecimal() else b""
    except asyncio.LimitOverrunError:
        raise NoAnswerError("an answer without an end") from None
    except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
        raise NoAnswerError("closed without an answer") from None
    return status, headers, body


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
