"""The HTTP edge over TLS: real handshakes, renewal while it serves, and who is turned away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from webhook_gateway.answers import Answer, plain
from webhook_gateway.edge.connection import Timeouts
from webhook_gateway.edge.request import Request
from webhook_gateway.edge.server import serving
from webhook_gateway.edge.tls import HttpTls, refuse_plain_http
from webhook_gateway.limits import Crowd, Room
from webhook_gateway.settings import GatewaySection
from webhook_ops.authority import Pair
from webhook_shared.rpc.tls import TlsProblem
from webhook_shared.settings import TlsSection

from tests.tls.papers import HERE, Papers

ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE_S = 0.3


class Counting:
    """A handler that answers with the number of bytes it was sent."""

    def opened(self, request: Request) -> Answer | None:
        """Let every body come."""
        request.body_limit_bytes = 2**24
        return None

    def received(self, request: Request) -> asyncio.Future[Any]:
        """Count."""
        future = asyncio.get_running_loop().create_future()
        future.set_result(len(request.body))
        return future

    def answer(self, request: Request, result: Any) -> Answer:
        """Tell."""
        return plain(200, str(result).encode())

    def answered(self, request: Request, answer: Answer) -> None:
        """Nothing depends on it."""


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


@asynccontextmanager
async def https(tls: TlsSection, crowd: Crowd | None = None) -> AsyncIterator[int]:
    shown = HttpTls(tls.cert_file, tls.key_file, look_again_s=0.01)
    timeouts = Timeouts(header_s=HANDSHAKE_S, body_s=5, keep_alive_s=5)
    crowd, room = crowd or Crowd(100, 100), Room(2**26)
    async with serving(
        "127.0.0.1:0", Counting(), timeouts=timeouts, crowd=crowd, room=room, drain_s=1, tls=shown
    ) as port:
        yield port


class Sender:
    """One connection of a sender that believes the papers' authority."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connected(cls, port: int, papers: Papers, **limits: ssl.TLSVersion) -> Sender:
        context = ssl.create_default_context(cafile=papers.directory / "ca.crt")
        for name, value in limits.items():
            setattr(context, name, value)
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    @property
    def shown(self) -> str:
        """The common name of the server's certificate."""
        certificate = self.writer.get_extra_info("peercert")
        return str(dict(part[0] for part in certificate["subject"])["commonName"])

    async def ask(self, data: bytes = ASK) -> bytes:
        self.writer.write(data)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return head.split(b" ", 2)[1] + b" " + await self.reader.readexactly(length)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def test_a_connection_carries_many_requests_and_large_bodies(papers: Papers) -> None:
    async with https(papers.server("edge")) as port:
        sender = await Sender.connected(port, papers)
        assert sender.writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}
        body = b"x" * 3_000_000
        for _ in range(2):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            assert await sender.ask(head + body) == b"200 3000000"
        assert await sender.ask() == b"200 0"
        await sender.close()


async def test_a_new_certificate_is_shown_without_a_break(papers: Papers) -> None:
    async with https(papers.server("edge")) as port:
        before = await Sender.connected(port, papers)
        assert before.shown == "edge"
        papers.keep("edge", papers.authority.issue("renewed", hosts=HERE))
        async with asyncio.timeout(5):
            while (after := await Sender.connected(port, papers)).shown != "renewed":
                await after.close()
                await asyncio.sleep(0.02)
        assert await before.ask() == await after.ask() == b"200 0"
        papers.keep("edge", Pair(b"half of a cert", b""))
        await asyncio.sleep(0.05)
        later = await Sender.connected(port, papers)
        assert later.shown == "renewed"
        for sender in (before, after, later):
            await sender.close()


async def test_old_tls_and_plain_text_and_silence_get_nowhere(papers: Papers) -> None:
    async with https(papers.server("edge")) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="TLSv1"):
            await Sender.connected(
                port, papers, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1
            )
        for said in (ASK, b"", b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said)
            answer = await asyncio.wait_for(reader.read(), HANDSHAKE_S * 5)
            assert not answer.startswith(b"HTTP")
            writer.close()
        # And it still serves who comes properly.
        sender = await Sender.connected(port, papers)
        assert await sender.ask() == b"200 0"
        await sender.close()


async def test_who_only_shakes_hands_counts_and_is_let_go(papers: Papers) -> None:
    crowd = Crowd(100, 3)
    async with https(papers.server("edge"), crowd) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with asyncio.timeout(5):
            while crowd.size < 3:
                await asyncio.sleep(0.005)
        # A fourth of this address is closed before its handshake.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await Sender.connected(port, papers)
        async with asyncio.timeout(HANDSHAKE_S * 10):
            while crowd.size:
                await asyncio.sleep(0.005)
        for _, writer in silent:
            writer.close()
        senders = [await Sender.connected(port, papers) for _ in range(3)]
        assert len(senders) == crowd.size
        assert [await sender.ask() for sender in senders] == [b"200 0"] * 3
        for sender in senders:
            await sender.close()
        async with asyncio.timeout(5):
            while crowd.size:
                await asyncio.sleep(0.005)


async def test_handshakes_that_are_under_way_end_with_the_server(papers: Papers) -> None:
    crowd = Crowd(100, 100)
    async with https(papers.server("edge"), crowd) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            while not crowd.size:
                await asyncio.sleep(0.005)
    assert not crowd.size
    assert await reader.read() == b""
    writer.close()


def test_plain_http_stays_on_this_machine_unless_said_so() -> None:
    refuse_plain_http("127.0.0.1:8080", allowed=False)
    refuse_plain_http("0.0.0.0:8080", allowed=True)
    with pytest.raises(TlsProblem, match="WEBHOOK_HTTP_ALLOW_PLAIN_TEXT"):
        refuse_plain_http("0.0.0.0:8080", allowed=False)


def test_a_certificate_and_its_key_go_together() -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_HTTP_TLS_KEY_FILE"):
        GatewaySection(http_tls_cert_file="edge.crt")
