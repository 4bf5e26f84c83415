"""An S3 server that we did not write, and a line to it that fails on demand."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr
from webhook_shared.objects.protocol import ObjectStorageSection

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of a server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{url}/moto-api/", timeout=1):
                break
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def section_of(url: str, bucket: str, **changed: Any) -> ObjectStorageSection:
    return ObjectStorageSection(
        endpoint=url, bucket=bucket, access_key_id="id", secret_access_key=SecretStr("secret"), **changed
    )


def make_bucket(url: str) -> str:
    name = f"contexts-{os.urandom(6).hex()}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=30):
        return name


def keep_versions(url: str, bucket: str, status: str = "Enabled") -> None:
    """Let the bucket keep what is replaced or deleted."""
    body = f"<VersioningConfiguration><Status>{status}</Status></VersioningConfiguration>".encode()
    headers = {"Content-Type": "application/xml"}
    request = urllib.request.Request(f"{url}/{bucket}?versioning", method="PUT", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass


def versions(url: str, bucket: str) -> str:
    with urllib.request.urlopen(f"{url}/{bucket}?versions", timeout=30) as answer:
        return str(answer.read().decode())


def lose_all(url: str) -> None:
    """Let there be no bucket any more."""
    with urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=30):
        pass


def listed(url: str, bucket: str) -> str:
    with urllib.request.urlopen(f"{url}/{bucket}?list-type=2", timeout=30) as answer:
        return str(answer.read().decode())


@dataclass
class Line:
    """A way to the server.

    Attributes:
        faults: What happens to the next requests: "ok", "500", "lost" (done, but nobody hears of it),
            "torn" (half of the answer's body), "flipped" (a bit of it), "slow" (never answered), or an answer
            as it stands, from "HTTP/" on, without the request being passed on.
        seen: The methods of all requests.
    """

    url: str
    faults: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)


@asynccontextmanager
async def failing_line(server: str) -> AsyncIterator[Line]:
    """A line to a server, without faults at first."""
    host, _, port = server.removeprefix("http://").partition(":")
    line = Line("")
    open_calls: set[asyncio.Task[None]] = set()

    async def served(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        request = await _request(client, answers)
        if not request:
            return
        line.seen.append(request.split(b" ", 1)[0].decode())
        fault = line.faults.pop(0) if line.faults else "ok"
        if fault == "slow":
            await asyncio.sleep(3600)
        if fault == "500":
            answers.write(_FAILURE)
            return
        if fault.startswith("HTTP/"):
            answers.write(fault.encode())
            return
        upstream, requests = await asyncio.open_connection(host, int(port))
        requests.write(request)
        answer = await upstream.read()
        requests.close()
        if fault != "lost":
            answers.write(_harmed(answer, fault))

    async def guarded(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        open_calls.add(task)
        with suppress(OSError, asyncio.IncompleteReadError):
            await served(client, answers)
            await answers.drain()
        answers.close()

    listening = await asyncio.start_server(guarded, "127.0.0.1", 0, limit=2**26)
    line.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        listening.close()
        for task in open_calls:
            task.cancel()
        await asyncio.gather(*open_calls, return_exceptions=True)


async def _request(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> bytes:
    try:
        head = await client.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    if b"100-continue" in head.lower():
        answers.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = _LENGTH.search(head)
    body = await client.readexactly(int(length[1])) if length else b""
    lines = [
        one
        for one in head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        if not one.lower().startswith((b"expect:", b"connection:"))
    ]
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


def _harmed(answer: bytes, fault: str) -> bytes:
    head, gap, body = answer.partition(b"\r\n\r\n")
    if fault == "torn":
        body = body[: len(body) // 2]
    if fault == "flipped" and body:
        body = bytes([body[0] ^ 1]) + body[1:]
    return head + gap + body
