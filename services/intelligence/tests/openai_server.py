"""An OpenAI-compatible server of ours for the faults that others' mock servers do not have."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Answer = tuple[int, dict[str, str], bytes]
Handler = Callable[[str, dict[str, Any]], Answer]


@dataclass
class Server:
    """Answers as its handler says, and remembers what it was asked."""

    handler: Handler
    url: str = ""
    delay_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                length = next(
                    int(line.partition(":")[2])
                    for line in head.lower().splitlines()
                    if line.startswith("content-length")
                )
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                await asyncio.sleep(self.delay_s)
                status, headers, answer = self.handler(path, body)
                lines = [f"HTTP/1.1 {status} X", f"content-length: {len(answer)}"]
                lines += [f"{name}: {value}" for name, value in headers.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(handler: Handler, *, delay_s: float = 0.0) -> AsyncIterator[Server]:
    server = Server(handler, delay_s=delay_s)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**24)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listener.close()


def as_json(status: int, value: object, **headers: str) -> Answer:
    headers = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return status, headers, json.dumps(value).encode()


def refused(status: int, code: str = "bad") -> Answer:
    return as_json(status, {"error": {"message": "secret detail of the provider", "code": code}})


def vector_of(text: str, dimension: int) -> np.ndarray:
    return np.random.default_rng(abs(hash(text))).standard_normal(dimension).astype(np.float32)


def embeddings(body: dict[str, Any], *, dimension: int | None = None, shuffled: bool = False) -> Answer:
    """A good answer, in base64 as asked."""
    size = dimension or body.get("dimensions", 1536)
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": base64.b64encode(vector_of(text, size).tobytes()).decode(),
        }
        for i, text in enumerate(body["input"])
    ]
    if shuffled:
        data.reverse()
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return as_json(200, {"object": "list", "data": data, "model": body["model"], "usage": usage})


def chat(content: str) -> Answer:
    message = {"role": "assistant", "content": content}
    return as_json(
        200,
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4-turbo",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        },
    )
