"""One HTTP/1.1 connection: httptools (llhttp, strict) parses, this class keeps limits and order.

A request costs one object and no task of its own. Requests of one connection are answered in order;
what a sender pipelines waits until the answer before it is written. A request whose answer is known
before its body has arrived is answered without keeping the body.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import httptools
import structlog

from webhook_gateway import metrics
from webhook_gateway.answers import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    TOO_MANY,
    UNAVAILABLE,
    Answer,
)
from webhook_gateway.edge.request import Request
from webhook_gateway.limits import Room

log = structlog.get_logger()

MAX_HEADERS = 64
MAX_HEAD_BYTES = 32 * 1024
# A refused body that is no larger than this is read and dropped, and the connection lives on.
MAX_DROPPED_BYTES = 64 * 1024
# What a chunked body may cost beyond its content: sizes, extensions, trailers.
CHUNKED_OVERHEAD_BYTES = 64 * 1024
OVERHEAD_PER_CHUNK_BYTES = 32
MAX_PIPELINED = 32
LINGER_S = 2.0
MAX_LINGERED_BYTES = 4 * 1024 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")


@dataclass(frozen=True)
class Timeouts:
    """How long a sender may take, seconds."""

    header_s: float
    body_s: float
    keep_alive_s: float


class Handler(Protocol):
    """Decides about requests. Raises nothing."""

    def opened(self, request: Request) -> Answer | None:
        """Judge the headers; None: `body_limit_bytes` is set, let the body come."""

    def received(self, request: Request) -> asyncio.Future[Any]:
        """The request is whole; `answer` understands the future's result."""

    def answer(self, request: Request, result: Any) -> Answer:
        """Put the result into words."""

    def answered(self, request: Request, answer: Answer) -> None:
        """Hear what was said, whoever decided it."""


class Listener(Protocol):
    """What the connections of one server share."""

    handler: Handler
    timeouts: Timeouts
    # "date: ...\r\n", of this second.
    date: bytes
    draining: bool
    room: Room

    def joined(self, connection: Connection, peer: str) -> Answer | None:
        """A connection is open; an answer where it may not stay."""

    def left(self, connection: Connection, peer: str) -> None:
        """A connection is closed."""


class Stage(enum.Enum):
    """How far the parser is in the message that arrives."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


# A member is looked up in its class anew each time it is named there, and headers are many.
_IDLE, _HEAD, _BODY = Stage


class Connection(asyncio.Protocol):
    """The socket of one sender."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._handler = listener.handler
        self._room = listener.room
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._peer = ""
        self.is_made = False
        # The request that is being parsed.
        self._arriving = Request("")
        self._stage = _IDLE
        self._parts: list[bytes] = []
        self._wire_bytes = 0
        self._body_bytes = 0
        self._chunks = 0
        # The request that is being answered, those behind it, and bytes that nobody has parsed yet.
        self._current: Request | None = None
        self._behind: deque[Request] = deque()
        self._held = b""
        # When to lose patience (the loop's time), and the stage that this was set for.
        self._deadline_s = self._loop.time() + listener.timeouts.header_s
        self._timed: Stage | None = _IDLE
        # No request is taken after this one; nothing is parsed any more; the answer was given before
        # the request was whole; the sender does not read; the sender has closed its side.
        self._last = False
        self._deaf = False
        self._cut = False
        self._clogged = False
        self._ended = False
        self._lingering = False

    # The socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.is_made = True
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]).removeprefix("::ffff:") if isinstance(peer, tuple) else ""
        refusal = self._listener.joined(self, self._peer)
        if refusal is not None:
            self._last = self._deaf = True
            self._write(Request(self._peer), refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """The sender is gone. A request that it had sent whole is still dealt with."""
        self._listener.left(self, self._peer)
        self._deaf = True
        self._forget_waiting()
        if self._arriving is not self._current:
            self._empty(self._arriving)

    def eof_received(self) -> bool:
        """The sender sends no more; if a request of it is under way it may still read the answer."""
        self._ended = self._last = True
        return self._current is not None

    def pause_writing(self) -> None:
        """The sender does not read: take nothing more from it."""
        self._clogged = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The sender reads again."""
        self._clogged = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        """Parse, unless an answer is due first."""
        if self._lingering:
            self._wire_bytes += len(data)
            if self._wire_bytes > MAX_LINGERED_BYTES:
                self._transport.abort()
        elif self._deaf:
            return
        elif self._current is not None or self._clogged:
            self._hold(data)
        else:
            self._feed(data)

    def _hold(self, data: bytes) -> None:
        """Keep for later, and read no more until then."""
        if not self._room.take(len(data)):
            metrics.shed.labels("bodies").inc()
            self._transport.abort()
            return
        self._held += data
        self._transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        self._wire_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # We speak nothing but HTTP/1.1: the request stands, what follows it does not.
            self._deaf = True
        except httptools.HttpParserCallbackError:
            log.exception("http.callback_failed")
            self._refuse(UNAVAILABLE)
        except httptools.HttpParserError:
            self._reject()
        if self._current is None and not self._deaf:
            self._check_wire()
            # A connection that has just been refused keeps the deadline of its end.
            if not self._deaf:
                self._watch()

    def _check_wire(self) -> None:
        """What has arrived is not a whole request: is it within limits so far?"""
        if self._stage is _HEAD and self._wire_bytes > MAX_HEAD_BYTES:
            self._refuse(HEADERS_TOO_LARGE)
        elif self._stage is _BODY:
            overhead = self._wire_bytes - self._body_bytes - MAX_HEAD_BYTES - CHUNKED_OVERHEAD_BYTES
            if overhead > OVERHEAD_PER_CHUNK_BYTES * self._chunks:
                self._refuse(TOO_LARGE)

    # The parser

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._arriving = Request(self._peer)
        self._stage = _HEAD
        self._body_bytes = self._chunks = 0

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._arriving.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Trailers come here too, after the headers, and are dropped."""
        if self._stage is _HEAD:
            self._arriving.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Ask the handler whether the body may come."""
        if self._deaf:
            return
        request = self._arriving
        self._stage = _BODY
        request.method = self._parser.get_method()
        if (
            not self._parser.should_keep_alive()
            or self._parser.should_upgrade()
            or self._parser.get_http_version() != "1.1"
        ):
            self._last = True
        if len(request.headers) > MAX_HEADERS or self._head_is_too_large():
            request.refusal = HEADERS_TOO_LARGE
        else:
            request.refusal = self._handler.opened(request)
        if request.refusal is not None:
            self._refuse_head(request, request.refusal)
        elif request.expects_continue and self._current is None:
            self._transport.write(_CONTINUE)

    def _refuse_head(self, request: Request, refusal: Answer) -> None:
        """A small body is dropped as it comes; nobody waits for one that is large or not sent unasked.

        Who is turned away for going on like that is rid of its connection, too.
        """
        turned_away = refusal is TOO_LARGE or refusal.status == TOO_MANY.status
        if turned_away or any(name == b"expect" for name, _ in request.headers):
            self._refuse(refusal)

    def _head_is_too_large(self) -> bool:
        if self._wire_bytes <= MAX_HEAD_BYTES:
            return False
        request = self._arriving
        size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        return size > MAX_HEAD_BYTES

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        if self._deaf:
            return
        request = self._arriving
        self._body_bytes += len(body)
        self._chunks += 1
        if request.refusal is not None:
            if self._body_bytes > MAX_DROPPED_BYTES:
                self._refuse(request.refusal)
        elif self._body_bytes > request.body_limit_bytes:
            self._refuse(TOO_LARGE)
        elif not self._room.take(len(body)):
            metrics.shed.labels("bodies").inc()
            self._refuse(UNAVAILABLE)
        else:
            request.room_bytes += len(body)
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self._deaf:
            return
        self._stage = _IDLE
        self._wire_bytes = 0
        parts, self._parts = self._parts, []
        self._arriving.body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._complete(self._arriving)

    # The requests, in order

    def _reject(self) -> None:
        """The parser can't read on."""
        if self._stage is _IDLE:
            if self._last:
                # Bytes after a request that asked for the end: nobody waits for an answer to them.
                self._deaf = True
                return
            self._arriving = Request(self._peer)
        self._refuse(BAD_REQUEST)

    def _refuse(self, answer: Answer) -> None:
        """Answer what is arriving without waiting for the rest of it; the connection ends with that."""
        if self._deaf:
            return
        self._deaf = self._last = self._cut = True
        self._parts = []
        self._empty(self._arriving)
        self._arriving.refusal = answer
        self._complete(self._arriving)

    def _complete(self, request: Request) -> None:
        request.completed_s = time.perf_counter()
        if self._current is None:
            self._begin(request)
            return
        self._behind.append(request)
        if len(self._behind) >= MAX_PIPELINED:
            self._deaf = self._last = self._cut = True

    def _begin(self, request: Request) -> None:
        if request.refusal is not None:
            self._write(request, request.refusal)
            return
        future = self._handler.received(request)
        self._current = request
        self._deadline_s = _NEVER
        future.add_done_callback(self._settled)

    def _settled(self, future: asyncio.Future[Any]) -> None:
        request, self._current = self._current, None
        assert request is not None
        if future.cancelled() or future.exception() is not None:
            log.error("http.request_failed", exc_info=None if future.cancelled() else future.exception())
            self._write(request, UNAVAILABLE)
        else:
            self._write(request, self._handler.answer(request, future.result()))
        self._go_on()

    def _write(self, request: Request, answer: Answer) -> None:
        self._empty(request)
        self._handler.answered(request, answer)
        if self._transport.is_closing():
            return
        ends = (self._last and not self._behind) or self._listener.draining
        self._transport.write(
            b"".join(
                (
                    answer.head,
                    self._listener.date,
                    b"connection: close\r\n\r\n" if ends else b"\r\n",
                    b"" if request.method == b"HEAD" else answer.body,
                )
            )
        )
        if ends:
            self._finish()
        else:
            self._timed = None
            self._watch()

    def _go_on(self) -> None:
        """Nothing is being answered: take what waits."""
        while self._behind and self._current is None:
            self._begin(self._behind.popleft())
        if self._current is not None or self._clogged or self._transport.is_closing():
            return
        if self._held:
            held = self._take_held()
            if not self._deaf:
                self._feed(held)
        if self._current is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _empty(self, request: Request) -> None:
        """Its body needs no room any more."""
        if request.room_bytes:
            self._room.give_back(request.room_bytes)
            request.room_bytes = 0

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        self._room.give_back(len(held))
        return held

    def _forget_waiting(self) -> None:
        self._take_held()
        for request in self._behind:
            self._empty(request)
        self._behind.clear()

    # The end

    def _finish(self) -> None:
        """Close; but if the sender is still sending, read on for a while, or a reset overtakes the answer."""
        self._deaf = True
        self._forget_waiting()
        # Who does not read the last answer would else keep its connection for ever.
        self._deadline_s = self._loop.time() + LINGER_S
        if self._ended or not self._cut:
            self._transport.close()
            return
        self._lingering = True
        self._wire_bytes = 0
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _watch(self) -> None:
        """Set the deadline of the stage that the connection is in now."""
        if self._stage is self._timed:
            return
        self._timed = self._stage
        timeouts = self._listener.timeouts
        if self._stage is _IDLE:
            allowed_s = timeouts.keep_alive_s
        elif self._stage is _HEAD:
            allowed_s = timeouts.header_s
        else:
            allowed_s = timeouts.body_s
        self._deadline_s = self._loop.time() + allowed_s

    def expire(self, now_s: float) -> None:
        """Act if the sender has been too slow; `now_s` is the loop's time."""
        if now_s < self._deadline_s:
            return
        if self._lingering or self._clogged or self._transport.is_closing():
            self._transport.abort()
        elif self._stage is _IDLE or self._deaf:
            self._transport.close()
        else:
            self._refuse(REQUEST_TIMEOUT)

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.abort()

    def drain(self) -> None:
        """Take no more requests; what is under way is finished."""
        if self._current is None and self._stage is _IDLE:
            self._transport.close()
