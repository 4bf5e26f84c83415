"""The guide's windows and the filter, on every way in: HTTP, producers, and the spool while Redis is away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from webhook.ingest.v1 import ingest_service_pb2 as messages
from webhook.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from webhook_gateway.settings import GatewaySection, GatewaySettings, GatewayWebhook, SpoolSection
from webhook_gateway.wiring import running as gateway
from webhook_security.settings import SecuritySettings
from webhook_security.wiring import running as security
from webhook_shared import redis as store
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import IdentitySection, ProcessSection, RedisSection, ServicesSection

from tests import wire
from tests.senders import Delivery

SECRET = "the secret of github"
KEY = SecretStr("an internal key for tests, long enough")
GUIDE = {"github": {"duration": "5m", "max_size": 2}}
PATIENCE = timedelta(milliseconds=300)
DAY_MS = 86_400_000


class Door:
    """Both ways in, and what is behind them."""

    def __init__(self, http: str, rpc: grpc.aio.Channel, client: store.Client) -> None:
        self._http, self._stub, self.client = http, IngestServiceStub(rpc), client

    async def http(self, delivery_id: str, body: bytes = b'{"action":"opened"}') -> bool:
        """Whether it was a duplicate."""
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-github-event": "issues",
            "x-github-delivery": delivery_id,
            "x-hub-signature-256": f"sha256={signature}",
        }
        answer = await wire.post(self._http, Delivery("/webhooks/github", tuple(headers.items()), body))
        assert answer.status == 202, answer
        return bool(answer.duplicate)

    async def rpc(self, delivery_id: str, body: bytes = b'{"action":"opened"}') -> bool:
        """The same, by a producer."""
        event = messages.ProducedEvent(tool="github", type="issues", delivery_id=delivery_id, payload=body)
        (result,) = (
            await self._stub.IngestEvents(messages.IngestEventsRequest(tenant="default", events=[event]))
        ).results
        assert not result.status.code, result
        return bool(result.duplicate)

    async def flood(self, delivery_id: str, count: int) -> int:
        """The same delivery so many times at once, by a producer; how many were duplicates."""
        event = messages.ProducedEvent(tool="github", delivery_id=delivery_id, payload=b"{}")
        request = messages.IngestEventsRequest(tenant="default", events=[event] * count)
        return sum(result.duplicate for result in (await self._stub.IngestEvents(request)).results)

    async def remembered_ms(self) -> int:
        """How long the only record is kept."""
        (name,) = [name async for name in self.client.scan_iter("dedup:*")]
        return int(await self.client.pttl(name))

    async def events(self) -> int:
        return int(await self.client.xlen("webhook-events"))


@asynccontextmanager
async def house(
    redis: RedisSection, deduplication: Mapping[str, Any], spool: Path | None = None
) -> AsyncIterator[Door]:
    common = {"redis": redis, "identity": IdentitySection(internal_key=KEY)}
    process = ProcessSection(listen_address="127.0.0.1:0", drain_timeout=timedelta(seconds=1))
    judging = SecuritySettings.model_validate(
        {
            "webhook": {
                **common,
                "encryption": {"master_key": SecretStr("a master key for tests, 0123456789abcdef")},
                "deduplication": deduplication,
            },
            "process": process,
        }
    )
    async with security(judging) as judge:
        section = GatewaySection(
            http_address="127.0.0.1:0",
            publish_timeout=PATIENCE,
            spool=SpoolSection(directory=str(spool) if spool else ""),
        )
        services = ServicesSection(security=f"127.0.0.1:{judge.port}", gateway="127.0.0.1:0")
        webhook = GatewayWebhook(**common, services=services, gateway=section)
        async with (
            gateway(GatewaySettings(webhook=webhook, process=process)) as door,
            connected(f"127.0.0.1:{door.port}", key=KEY, deadline_s=5) as rpc,
        ):
            client = store.connect(redis)
            yield Door(f"127.0.0.1:{door.http_port}", rpc, client)
            await client.aclose()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("way", ["http", "rpc"])
@pytest.mark.parametrize(
    ("configs", "promise"),
    [({}, (1, 3 * DAY_MS)), (GUIDE, (2, 300_000)), ({"github": {"max_size": 3}}, (3, 3 * DAY_MS))],
)
async def test_as_many_pass_for_as_long_as_the_guide_says(
    valkey: RedisSection, way: str, configs: Any, promise: tuple[int, int]
) -> None:
    passing, window_ms = promise
    async with house(valkey, {"window_configs": configs}) as door:
        deliver = getattr(door, way)
        assert [await deliver("one") for _ in range(passing + 2)] == [False] * passing + [True] * 2
        assert window_ms - 30_000 < await door.remembered_ms() <= window_ms
        assert await door.events() == passing


@pytest.mark.usefixtures("redis")
async def test_both_ways_in_share_one_window(valkey: RedisSection) -> None:
    async with house(valkey, {"default_window": "1h"}) as door:
        # The hook's id is a part of the name, which neither gives.
        assert [await door.http("one"), await door.rpc("one"), await door.http("one")] == [False, True, True]


async def test_the_spool_lets_as_many_pass_and_redis_knows_them_later(
    redis_server: Any, tmp_path: Path
) -> None:
    async with house(redis_server.settings, {"window_configs": GUIDE}, tmp_path / "spool") as door:
        redis_server.kill()
        assert [await door.http("one") for _ in range(3)] == [False, False, True]
        assert [await door.rpc("two"), await door.rpc("two"), await door.rpc("two")] == [False, False, True]
        # Another body under the same id is another event here, too.
        assert not await door.http("one", b'{"action":"closed"}')
        redis_server.start()
        await redis_server.answering()
        async with asyncio.timeout(10):
            while REGISTRY.get_sample_value("webhook_spool_events"):
                await asyncio.sleep(0.02)
        assert await door.events() == 5
        assert [await door.http("one"), await door.rpc("two")] == [True, True]
        listed: Any = await door.client.xrange("conflicts:{webhook-events}")
        assert len(listed) == 1


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(("bits", "known"), [(10_000_000, True), (0, False)])
async def test_the_filter_answers_duplicates_before_they_are_sealed(
    valkey: RedisSection, bits: int, known: bool
) -> None:
    def looked_up() -> float:
        name = "webhook_security_duplicates_looked_up_total"
        return REGISTRY.get_sample_value(name, {"result": "known"}) or 0.0

    before = looked_up()
    async with house(valkey, {"bloom_filter_size": bits}) as door:
        # Enough of them in one batch to be worth a look.
        assert await door.flood("one", 1) == 0
        assert await door.flood("one", 40) == 40
        assert await door.events() == 1
    assert (looked_up() - before > 0) == known


async def test_a_signed_body_under_another_id_is_the_same_event(
    valkey: RedisSection, redis: store.Client
) -> None:
    dated = b'{"action":"opened","issue":{"updated_at":"2026-01-02T03:04:05Z"}}'
    for bits in (10_000_000, 0):
        await redis.flushall()
        async with house(valkey, {"bloom_filter_size": bits}) as door:
            minted = [os.urandom(4).hex() for _ in range(3)]
            assert [await door.http(name, dated) for name in minted] == [False, True, True]
            # What does not say when it happened may well happen twice.
            assert [await door.http(name) for name in minted] == [False, False, False]
