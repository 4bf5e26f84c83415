"""What is read leads to what is needed next: context store and intelligence, real, on sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from webhook.context.v1 import context_pb2, context_service_pb2
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_context import uses
from webhook_context.domain.contexts import Context, Facts
from webhook_context.intelligence_client import Foreseen, Outlook
from webhook_context.parts.tiers import tiering
from webhook_context.prewarming.allowance import Allowance
from webhook_context.prewarming.promotion import Bounds, Promotion
from webhook_context.prewarming.rule_record import HALF_LIFE_MS, RuleRecord
from webhook_context.prewarming.settings import ContextPrewarmingSection
from webhook_context.prewarming.waiting_room import WaitingRoom
from webhook_context.store import keys
from webhook_context.tiers.memory import Memory
from webhook_context.uses import Uses
from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running as running_intelligence
from webhook_shared.objects import opening as object_store
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.settings import RedisSection, ServicesSection

from services.context.tests.conftest import INTERNAL_KEY, House, webhook_of
from services.context.tests.test_tiers import lifecycle, until

PULL, ISSUE, OTHER = (f"github:octo/hello:{kind}" for kind in ("pull_request:42", "issue:9", "issue:10"))
MOMENT = timedelta(milliseconds=50)
HOT, COLD = context_pb2.TIER_HOT, context_pb2.TIER_COLD
NOW_S = 1_900_000_000.0


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"webhook_context_prewarm_{name}_total", labels) or 0.0


@dataclass(frozen=True)
class Foreseeing:
    """Two replicas of the context store beside intelligence, and somebody who reads."""

    houses: list[House]
    readers: list[Any]
    intelligence: Any

    async def read(self, context_id: str, replica: int = 0) -> Any:
        request = context_service_pb2.GetContextRequest(tenant="acme", context_id=context_id)
        return await self.readers[replica].GetContext(request)


@asynccontextmanager
async def foreseeing(
    valkey: RedisSection, redis: Client, open_house: Any, *, cold: Path, mode: str, **settings: Any
) -> AsyncIterator[Foreseeing]:
    key = SecretStr(INTERNAL_KEY.get_secret_value())
    environ = {
        "REDIS_ADDRESSES": valkey.addresses[0],
        "WEBHOOK_INTERNAL_KEY": key.get_secret_value(),
        "WEBHOOK_LISTEN_ADDRESS": "127.0.0.1:0",
        "AI_PREWARMING_MODE": mode,
    }
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(
            running_intelligence(IntelligenceSettings.load(file=None, environ=environ))
        )
        address = f"127.0.0.1:{up.port}"
        sections = {
            "cold_storage": ObjectStorageSection(directory=cold),
            "context_lifecycle": lifecycle(),
            "services": ServicesSection(intelligence=address),
            "context_prewarming": ContextPrewarmingSection(
                **{"report_interval": MOMENT, "hot_confidence_threshold": 0.5, **settings}
            ),
        }
        houses = [await stack.enter_async_context(open_house(valkey, **sections)) for _ in range(2)]
        _, secret = await ApiKeys(redis).mint("a reader", ("acme",), (Role.READER,))
        readers = []
        for house in houses:
            channel = connected(house.address, key=SecretStr(secret), deadline_s=20)
            readers.append(ContextServiceStub(await stack.enter_async_context(channel)))
        channel = connected(address, key=key, deadline_s=20)
        stub = IntelligenceServiceStub(await stack.enter_async_context(channel))
        yield Foreseeing(houses, readers, stub)


async def taught(up: Foreseeing, pairs: int = 40) -> None:
    """After any pull request its issue was read, a minute later; never these ones."""
    seen = []
    for i in range(pairs):
        for j, kind in enumerate(("pull_request", "issue")):
            one = pb.Observation(
                kind=pb.OBSERVATION_KIND_ACCESS,
                context_id=f"github:octo/hello:{kind}:{1000 + i}",
                linked_context_ids=[f"github:octo/hello:issue:{1000 + i}"] if not j else [],
            )
            one.time.FromNanoseconds(int((1.7e9 + 3600 * i + 60 * j) * 1e9))
            seen.append(one)
    await up.intelligence.Observe(pb.ObserveRequest(tenant="acme", observations=seen))

    async def learned() -> bool:
        found = await up.intelligence.Predict(pb.PredictRequest(tenant="acme"))
        return any(rule.on for rule in found.rules if rule.name == "links")

    await until(learned)


async def known(up: Foreseeing, make: Any, *issues: str) -> None:
    """A pull request that is tied to issues, which lie in the cold store."""
    house = up.houses[0]
    ties = [context_pb2.Link(relation="fixes", context_id=issue) for issue in issues]
    await house.append(
        make("pull", PULL, kind="pull_request", links=ties), *(make(one, one) for one in issues)
    )
    for issue in issues:
        await house.move("COLD", issue)


async def foreseen(up: Foreseeing, follows: Callable[[], Any]) -> int:
    """Read the pull request until what that leads to follows: a prediction that comes too late is lost.

    Returns how often it was read.
    """
    reads = 0

    async def read_and_waited() -> bool:
        nonlocal reads
        await up.read(PULL)
        reads += 1
        ends_s = time.monotonic() + 3
        while not (found := await follows()) and time.monotonic() < ends_s:
            await asyncio.sleep(0.01)
        return bool(found)

    await until(read_and_waited)
    return reads


async def tier(redis: Client, context_id: str) -> str:
    held: Any = await redis.hget(keys.context("acme", context_id), "tier")
    return str(held.decode())


async def test_a_read_brings_near_what_is_read_next(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any, *, tmp_path: Path
) -> None:
    before = {effect: counted("reads", effect=effect) for effect in ("hit", "saved", "missed")}
    settled = counted("settled", rule="links", outcome="used")
    async with foreseeing(valkey, redis, open_house, cold=tmp_path, mode="active") as up:
        await taught(up)
        await known(up, make, ISSUE)

        async def risen() -> bool:
            return await tier(redis, ISSUE) == "hot"

        reads = await foreseen(up, risen)
        # The other replica serves the read that was foreseen, and settles what the first one did.
        assert (await up.read(ISSUE, replica=1)).served_tier == HOT

        async def told() -> bool:
            return counted("settled", rule="links", outcome="used") == settled + 1

        await until(told)
        assert await redis.exists(keys.foreseen("acme"), keys.foreseen_until("acme")) == 0
        counts: Any = await redis.hget(keys.foreseen_rules("acme"), "links")
        assert counts.decode().startswith("1.000 0.000 ")

        async def learned() -> bool:
            found = await up.intelligence.Predict(pb.PredictRequest(tenant="acme"))
            return bool(found.observation_count >= 82)

        # Both reads.
        await until(learned)
    after = {effect: counted("reads", effect=effect) - count for effect, count in before.items()}
    # Nothing of what our own services read.
    assert after == {"hit": reads, "saved": 1, "missed": 0}


async def test_the_budget_is_kept(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any, *, tmp_path: Path
) -> None:
    refused = counted("promotions", rule="links", outcome="budget")
    async with foreseeing(
        valkey, redis, open_house, cold=tmp_path, mode="active", cold_reads_per_minute=1
    ) as up:
        await taught(up)
        await known(up, make, ISSUE, OTHER)

        async def told() -> bool:
            return counted("promotions", rule="links", outcome="budget") > refused

        await foreseen(up, told)
        assert sorted([await tier(redis, ISSUE), await tier(redis, OTHER)]) == ["cold", "hot"]


async def test_in_shadow_mode_it_is_measured_and_nothing_moves(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any, *, tmp_path: Path
) -> None:
    async with foreseeing(valkey, redis, open_house, cold=tmp_path, mode="shadow") as up:
        await taught(up)
        await known(up, make, ISSUE)

        async def waits() -> bool:
            return bool(await redis.hexists(keys.foreseen("acme"), ISSUE))

        await foreseen(up, waits)
        assert await tier(redis, ISSUE) == "cold"
        missed = counted("reads", effect="missed")
        assert (await up.read(ISSUE)).served_tier == COLD

        async def told() -> bool:
            return counted("reads", effect="missed") == missed + 1

        await until(told)
        counts: Any = await redis.hget(keys.foreseen_rules("acme"), "links")
        assert counts.decode().startswith("1.000 0.000 ")


async def test_without_intelligence_reads_go_on_and_notes_are_lost(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any
) -> None:
    dropped = counted("reports", result="dropped")
    nowhere = ServicesSection(intelligence="127.0.0.1:1")
    often = ContextPrewarmingSection(report_interval=MOMENT)
    async with open_house(valkey, services=nowhere, context_prewarming=often) as house:
        _, secret = await ApiKeys(redis).mint("a reader", ("acme",), (Role.READER,))
        await house.append(make("e1"))
        async with connected(house.address, key=SecretStr(secret), deadline_s=20) as channel:
            request = context_service_pb2.GetContextRequest(context_id="github:octo/hello:issue:1")
            for _ in range(5):
                assert (await ContextServiceStub(channel).GetContext(request)).context.version

        async def lost() -> bool:
            return counted("reports", result="dropped") == dropped + 5

        await until(lost)


class Parts:
    """Promotion over a real store, with a clock and a memory of the test's own."""

    def __init__(self, redis: Client, cold: Any, *, limit_bytes: int = 0, **bounds: float) -> None:
        self.now_s = NOW_S
        settings = webhook_of(RedisSection(), context_lifecycle=lifecycle())
        self.tiering = tiering(redis, cold, settings)
        self.record = RuleRecord(redis, break_even=0.15)
        self.room = WaitingRoom(redis, most=2, wait_ms=0)
        self.promotion = Promotion(
            self.tiering.tiers,
            self.tiering.transitions,
            Memory(redis, limit_bytes=limit_bytes, low_ratio=0.75),
            self.room,
            self.record,
            policy=self.tiering.policy,
            bounds=Bounds(
                **{
                    "hot_confidence": 0.5,
                    "cold_reads_per_minute": 60.0,
                    "bytes_per_minute": 1e9,
                    **bounds,
                }
            ),
            clock=lambda: self.now_s,
        )


Open = Callable[..., Parts]


@pytest.fixture
async def parts(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any, tmp_path: Path
) -> AsyncIterator[Open]:
    """Promotion over three contexts, all in the cold store."""
    section = ObjectStorageSection(directory=tmp_path)
    quiet = ContextPrewarmingSection(enabled=False)
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(
            open_house(valkey, cold_storage=section, context_lifecycle=lifecycle(), context_prewarming=quiet)
        )
        for context_id in (PULL, ISSUE, OTHER):
            await house.append(make(context_id, context_id))
            await house.move("COLD", context_id)
        cold = await stack.enter_async_context(object_store.opened(section))
        yield lambda **given: Parts(redis, cold, **given)


def outlook(*context_ids: str, confidence: float = 0.9, acts: bool = True) -> Outlook:
    return Outlook([Foreseen(one, confidence, "links") for one in context_ids], acts)


async def test_cold_warm_hot_and_back(parts: Open, redis: Client) -> None:
    up = parts()
    assert await up.promotion.promote("acme", outlook(ISSUE, confidence=0.3)) == 1
    assert await tier(redis, ISSUE) == "warm"
    # It waits already; once it does not any more, a confident rule brings it further.
    assert await up.promotion.promote("acme", outlook(ISSUE)) == 0
    assert await up.promotion.use("acme", [ISSUE]) == {ISSUE}
    assert await up.promotion.promote("acme", outlook(ISSUE)) == 1
    assert await tier(redis, ISSUE) == "hot"
    unused = counted("settled", rule="links", outcome="unused")
    assert await up.promotion.withdraw(["acme"]) == 1
    assert await tier(redis, ISSUE) == "warm"
    assert counted("settled", rule="links", outcome="unused") == unused + 1


async def test_what_has_changed_was_used(parts: Open, redis: Client) -> None:
    up = parts()
    await up.promotion.promote("acme", outlook(ISSUE))
    await redis.hincrby(keys.context("acme", ISSUE), "version", 1)
    assert await up.promotion.withdraw(["acme"]) == 0
    assert await tier(redis, ISSUE) == "hot"
    assert await redis.zscore(keys.due("acme"), ISSUE) is not None


async def test_no_more_wait_than_may(parts: Open, redis: Client) -> None:
    assert await parts().promotion.promote("acme", outlook(PULL, ISSUE, OTHER)) == 2
    assert await redis.hlen(keys.foreseen("acme")) == 2


async def test_a_full_redis_takes_nothing_and_gives_back_all(parts: Open, redis: Client) -> None:
    assert await parts().promotion.promote("acme", outlook(ISSUE)) == 1
    await redis.zadd(keys.foreseen_until("acme"), {ISSUE: 1e15})
    full = parts(limit_bytes=1)
    assert await full.promotion.promote("acme", outlook(OTHER)) == 0
    assert await full.promotion.withdraw(["acme"]) == 1
    assert {await tier(redis, ISSUE), await tier(redis, OTHER)} == {"cold"}


async def test_bytes_have_a_budget_that_fills_up(parts: Open, redis: Client) -> None:
    (state,) = await parts().tiering.tiers.states("acme", [ISSUE])
    up = parts(bytes_per_minute=1.5 * state.content_bytes)
    assert await up.promotion.promote("acme", outlook(ISSUE, OTHER)) == 1
    up.now_s += 60
    assert await up.promotion.promote("acme", outlook(OTHER)) == 1


async def test_a_rule_that_does_not_pay_here_rests_and_comes_back(parts: Open, redis: Client) -> None:
    up = parts()
    now_ms = await up.tiering.tiers.now_ms()
    await up.record.settle("acme", "links", used=1, unused=60, now_ms=now_ms)
    assert await up.promotion.promote("acme", outlook(ISSUE)) == 0
    assert await tier(redis, ISSUE) == "cold"
    assert await up.record.pays("acme", "association", now_ms)
    assert await up.record.pays("acme", "links", now_ms + 5 * HALF_LIFE_MS)


def test_notes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uses, "MOST_READS", 3)
    monkeypatch.setattr(uses, "MOST_IN_USE", 2)
    dropped = counted("reports", result="dropped")
    noted, silent = Uses(), Uses(is_kept=False)
    for each in (noted, silent):
        each.read("acme", "ann", [_context(f"c{i}") for i in range(5)])
        each.changed(("acme", f"e{i}") for i in range(5))
        each.gone("acme", "g")
    assert silent.take() == {}
    (used,) = noted.take().values()
    assert [read.context_id for read in used.reads] == ["c2", "c3", "c4"]
    assert list(used.in_use) == ["e0", "e1"]
    assert used.gone == ["g"]
    assert noted.take() == {}
    assert counted("reports", result="dropped") == dropped + 2


def test_an_allowance_fills_evenly() -> None:
    now_s = 0.0
    allowance = Allowance(60, lambda: now_s)
    assert allowance.holds(60)
    assert not allowance.holds(61)
    allowance.spend(60)
    assert not allowance.holds(1)
    now_s = 1.0
    assert allowance.holds(1)
    now_s = 1e6
    assert not allowance.holds(61)
    assert Allowance(0, lambda: now_s).holds(0)


def _context(context_id: str) -> Context:
    return Context(
        tenant="acme",
        context_id=context_id,
        version=1,
        create_ms=0,
        update_ms=0,
        event_count=0,
        importance=0,
        dirty=False,
        folded=0,
        requests="",
        facts=Facts(),
        events=[],
        payloads=[],
        enrichment=None,
        tier=HOT,
        served=HOT,
        pinned=False,
        reads=0,
        excerpt=[],
    )
