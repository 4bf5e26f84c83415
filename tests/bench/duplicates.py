"""What the filter before the sealing saves and costs: `python -m tests.bench.duplicates`.

Batches of 64 signed GitHub deliveries are judged, sent over the wire between security and gateway (serialised
and parsed, with no call between), and published to a real server. What is told is the CPU time of a delivery,
ours and the server's, with the filter and without it, batch by batch in turns; and how often a full filter is
wrong.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from pydantic import SecretStr
from webhook.security.v1.admission_pb2 import OUTCOME_DUPLICATE, Delivery
from webhook.security.v1.admission_service_pb2 import AdmitResponse
from webhook_gateway.outcome import Publication
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.stream import EVENTS, Publisher
from webhook_gateway.security_client import judged
from webhook_security import catalogue
from webhook_security.admission.judge import Admission
from webhook_security.duplicates.known import KnownDuplicates
from webhook_security.duplicates.seen import Seen
from webhook_security.evidence.rejections import Rejections
from webhook_security.registry.sources import Registry
from webhook_security.settings import DeduplicationSection, SecuritySection
from webhook_shared import redis as store
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring

from conftest import RedisServer
from tests.bench.consume.corpus import Payload, payloads
from tests.bench.report import report

SECRET = "a secret of the benchmark"
MASTER = SecretStr("a-master-key-for-measuring-only-0123456789")
BATCH = 64
BATCHES = 40
ROUNDS = 5
SHARES = (0.0, 0.05, 0.5, 1.0)
KEYS = 1_000_000


class Way:
    """From a delivery to its answer, with or without the filter."""

    def __init__(self, client: Client, keyring: Keyring, *, filtering: bool) -> None:
        security, section = SecuritySection(), DeduplicationSection()
        registry = Registry(catalogue.load("X"), security, section, environ={"GITHUB_WEBHOOK_SECRET": SECRET})
        self._known = None
        if filtering:
            self._known = KnownDuplicates(client, Partitions(EVENTS), filter_of(section))
        self._admission = Admission(registry, keyring, Rejections(), known=self._known)
        assurance = Assurance(client, replicas=1, timeout_s=0.2)
        self._publisher = Publisher(client, patience_s=5.0, assurance=assurance)

    async def go(self, batch: list[Delivery]) -> int:
        """Judge and publish; how many were known before they were sealed."""
        response = AdmitResponse()
        cases = [self._admission.case(delivery, response.verdicts.add()) for delivery in batch]
        held = self._admission.conclude(self._admission.prove(cases))
        if held:
            await self._admission.settle(held)
        verdicts = AdmitResponse.FromString(response.SerializeToString()).verdicts
        found = [judged(verdict, "github") for verdict in verdicts]
        publications = [each for each in found if isinstance(each, Publication)]
        if publications:
            await self._publisher.attempt(publications)
        return sum(verdict.outcome == OUTCOME_DUPLICATE for verdict in verdicts)


def filter_of(section: DeduplicationSection) -> Seen:
    """As the guide's keys shape it."""
    return Seen(
        section.bloom_filter_size, section.bloom_filter_hash_funcs, section.bloom_filter_false_positive_rate
    )


def delivery_of(payload: Payload) -> Delivery:
    """Signed, under an id of its own."""
    delivery = Delivery(tool="github", method="POST", body=payload.body, peer_address="203.0.113.7")
    delivery.received_time.GetCurrentTime()
    signature = hmac.new(SECRET.encode(), payload.body, hashlib.sha256).hexdigest()
    for name, value in {
        "content-type": "application/json",
        "x-github-event": payload.type,
        "x-github-delivery": os.urandom(16).hex(),
        "x-github-hook-id": "292430182",
        "x-hub-signature-256": f"sha256={signature}",
    }.items():
        delivery.headers.add(name=name, value=value.encode())
    return delivery


def mixed(share: float, new: list[Delivery], old: list[Delivery]) -> list[list[Delivery]]:
    """So many batches, of which that share has been sent before."""
    chance, unsent = random.Random(7), iter(new)
    return [
        [chance.choice(old) if chance.random() < share else next(unsent) for _ in range(BATCH)]
        for _ in range(BATCHES)
    ]


class Lane:
    """One way, with a server of its own."""

    def __init__(self, client: Client, keyring: Keyring, server: psutil.Process, *, filtering: bool) -> None:
        self._client, self._keyring, self._server = client, keyring, server
        self._filtering = filtering
        self._own_s = self._begun_s = 0.0
        self._known = 0

    async def begin(self, old: list[Delivery]) -> None:
        """Forget everything but these."""
        await self._client.delete(EVENTS, *[name async for name in self._client.scan_iter("dedup:*")])
        self._way = Way(self._client, self._keyring, filtering=self._filtering)
        await self._way.go(old)
        self._own_s, self._begun_s = 0.0, sum(self._server.cpu_times()[:2])

    async def go(self, batch: list[Delivery]) -> None:
        """One batch."""
        began_s = time.process_time()
        self._known += await self._way.go(batch)
        self._own_s += time.process_time() - began_s

    @property
    def us(self) -> float:
        """CPU time of a delivery since the beginning, ours and the server's, µs."""
        return (self._own_s + sum(self._server.cpu_times()[:2]) - self._begun_s) / BATCH / BATCHES * 1e6


async def measure(lanes: tuple[Lane, Lane]) -> list[dict[str, float]]:
    """A row for each share of duplicates: the lane with the filter, then the one without."""
    made = [delivery_of(each) for each in payloads(BATCH * (BATCHES + 1))]
    rows = []
    for share in SHARES:
        told: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for lane in lanes:
                await lane.begin(made[:BATCH])
            # Batch by batch in turns, so that whatever else the machine does falls on both.
            for number, batch in enumerate(mixed(share, made[BATCH:], made[:BATCH])):
                # Who comes second finds the deliveries in the processor's cache.
                for lane in lanes if number % 2 else lanes[::-1]:
                    await lane.go(batch)
            for lane, figures in zip(lanes, told, strict=True):
                figures.append(lane.us)
        saved = statistics.median(without - with_it for with_it, without in zip(*told, strict=True))
        row = {
            "duplicates": share,
            "with_us": round(statistics.median(told[0]), 1),
            "without_us": round(statistics.median(told[1]), 1),
            "saved_us": round(saved, 1),
        }
        rows.append(row)
        print(f"  {row}", flush=True)
    return rows


@asynccontextmanager
async def lane(*, filtering: bool) -> AsyncIterator[Lane]:
    """A lane, while its server runs."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        await server.answering()
        client = store.connect(server.settings)
        keyring = Keyring(client, MASTER)
        await keyring.prepare(["default"])
        server_id = (await client.info("server"))["process_id"]
        yield Lane(client, keyring, psutil.Process(server_id), filtering=filtering)
        await client.aclose()
        server.kill()


def full_filter() -> dict[str, float]:
    """How often it is wrong, what a key costs, and the memory of both halves."""
    seen = filter_of(DeduplicationSection())
    keys = [f"{number:024}" for number in range(KEYS)]
    began_s = time.process_time()
    wrong = sum(seen.note(key) for key in keys)
    took_us = (time.process_time() - began_s) / KEYS * 1e6
    return {"wrong_per_million": wrong / KEYS * 1e6, "note_us": took_us, "filter_mb": seen.size_bytes / 1e6}


async def main() -> None:
    """Measure and report."""
    figures = full_filter()
    os.environ["GITHUB_WEBHOOK_SECRET"] = SECRET
    async with lane(filtering=True) as with_it, lane(filtering=False) as without:
        rows = await measure((with_it, without))
    for row in rows:
        figures |= {f"{name}_at_{row['duplicates']:.0%}": row[name] for name in list(row)[1:]}
    report(
        "duplicates",
        figures,
        settings={"batch": BATCH, "batches": BATCHES, "rounds": ROUNDS, "keys": KEYS},
        payloads={"source": "@octokit/webhooks-examples, varied", "distinct": BATCH * BATCHES},
        shares=rows,
    )


if __name__ == "__main__":
    asyncio.run(main())
