"""Sealing and opening an event, with a shared and a fresh data key: `python -m tests.bench.envelope`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr
from webhook_ops.samples import catalogue
from webhook_shared import redis as store
from webhook_shared.sealing.envelope import Keyring

from conftest import RedisServer

ROUNDS = 7
PER_ROUND = 2_000
MASTER = SecretStr("a-master-key-for-measuring-only-0123456789")


def microseconds_each(action: Callable[[], object]) -> float:
    """The median over rounds of one call's time, µs."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(PER_ROUND):
            action()
        rounds.append((time.perf_counter() - started) / PER_ROUND * 1e6)
    return statistics.median(rounds)


async def main() -> None:
    """Print the table."""
    bodies = [catalogue.body(sample) for sample in catalogue.SAMPLES if sample.tool == "github"]
    body = max(bodies, key=len)
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        await server.answering()
        client = store.connect(server.settings)
        keyring = Keyring(client, MASTER)
        await keyring.prepare(["bench"])
        shared = keyring.seal("bench", body, "event", "1", dictionary="github")
        fresh = [
            keyring.seal("bench", body, "event", "1", dictionary="github", fresh=True)
            for _ in range(PER_ROUND * ROUNDS)
        ]
        unopened = iter(fresh)
        rows = {
            "seal, shared data key": microseconds_each(
                lambda: keyring.seal("bench", body, "event", "1", dictionary="github")
            ),
            "seal, fresh data key": microseconds_each(
                lambda: keyring.seal("bench", body, "event", "1", dictionary="github", fresh=True)
            ),
            "open, shared data key": microseconds_each(lambda: keyring.open("bench", shared, "event", "1")),
            "open, fresh data key": microseconds_each(
                lambda: keyring.open("bench", next(unopened), "event", "1")
            ),
        }
        await client.aclose()
        server.kill()
    print(f"{len(body)} bytes sealed to {len(shared)} ({len(body) / len(shared):.1f} x smaller)")
    for name, each in rows.items():
        print(f"{name:24} {each:7.1f} µs")


if __name__ == "__main__":
    asyncio.run(main())
