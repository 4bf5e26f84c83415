"""HTTP by hand, over a real socket, so that a test decides about every byte that goes out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.senders import Delivery, HeaderValue

ANSWER_WITHIN_S = 15.0
HEAD_LIMIT_BYTES = 64 * 1024


class NoAnswerError(Exception):
    """The connection was refused, or ended before an answer."""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        headers: Names in lower case.
        seconds: From the first byte sent to the last one received.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def event_id(self) -> str:
        """The id of the event that an acknowledgement names."""
        event_id = self.json["event_id"]
        assert isinstance(event_id, str)
        return event_id

    @property
    def duplicate(self) -> bool:
        """Whether the delivery was taken for one that had come before."""
        return bool(self.json.get("duplicate"))


def request_head(
    target: str | bytes, headers: Iterable[tuple[str, HeaderValue]], *, method: str = "POST"
) -> bytes:
    """Request line and headers, with the empty line that ends them."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), _bytes(target)), b"Host: webhooks.example.com"]
    lines += [b"%s: %s" % (name.encode(), _bytes(value)) for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


def whole(delivery: Delivery, *, method: str = "POST") -> bytes:
    """A delivery as one request with a content-length."""
    headers = (*delivery.headers, ("Content-Length", str(len(delivery.body))))
    return request_head(delivery.path, headers, method=method) + delivery.body


def chunked(delivery: Delivery, *, chunk_bytes: int = 16 * 1024) -> bytes:
    """A delivery as one chunked request."""
    head = request_head(delivery.path, (*delivery.headers, ("Transfer-Encoding", "chunked")))
    body = delivery.body
    pieces = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


async def post(address: str, delivery: Delivery, *, within_s: float = ANSWER_WITHIN_S) -> Answer:
    """Send a delivery on a connection of its own.

    Raises:
        NoAnswerError: There was none.
        TimeoutError: None within that time.
    """
    return await exchange(address, whole(delivery), within_s=within_s)


async def get(address: str, target: str, *, within_s: float = ANSWER_WITHIN_S) -> Answer:
    """GET, on a connection of its own."""
    return await exchange(address, request_head(target, (), method="GET"), within_s=within_s)


async def exchange(
    address: str,
    *parts: bytes,
    between_s: float = 0.0,
    within_s: float = ANSWER_WITHIN_S,
    bodiless: bool = False,
) -> Answer:
    """Send bytes on a new connection and read one answer.

    Args:
        address: host:port.
        parts: Sent in order; the answer may come before all are sent.
        between_s: How long to pause between two parts, seconds.
        within_s: Most time for the whole of it, seconds.
        bodiless: The answer ends with its head, whatever length that names: it answers a HEAD.

    Raises:
        NoAnswerError: There was none.
        TimeoutError: None within that time.
    """
    started_s = time.perf_counter()
    async with asyncio.timeout(within_s), connection(address) as (reader, writer):
        sending = asyncio.create_task(_send(writer, parts, between_s))
        try:
            status, headers, body = await read_answer(reader, bodiless=bodiless)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return Answer(status, headers, body, time.perf_counter() - started_s)


@contextlib.asynccontextmanager
async def connection(address: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection, closed on leaving.

    Raises:
        NoAnswerError: Nobody listens.
    """
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port), limit=HEAD_LIMIT_BYTES)
    except OSError as error:
        raise NoAnswerError(type(error).__name__) from None
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, parts: Iterable[bytes], between_s: float) -> None:
    # A peer that has answered may close before everything is sent; the answer is what counts.
    with contextlib.suppress(OSError):
        for number, part in enumerate(parts):
            if number and between_s:
                await asyncio.sleep(between_s)
            writer.write(part)
            await writer.drain()


async def read_answer(
    reader: asyncio.StreamReader, *, bodiless: bool = False
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the next answer on a connection; interim ones are passed over.

    Raises:
        NoAnswerError: There was none, or only a part of it.
    """
    try:
        status, headers = await _read_head(reader)
        while status < 200:
            status, headers = await _read_head(reader)
        length = "0" if bodiless else headers.get("content-length")
        body = await (reader.readexactly(int(length)) if length is not None else reader.read())
    except (OSError, asyncio.IncompleteReadError) as error:
        raise NoAnswerError(type(error).__name__) from None
    return status, headers, body


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")
