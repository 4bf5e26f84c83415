"""Rates over real sockets: exact over replicas, fair between sources, harmless while Redis is away."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from prometheus_client import REGISTRY
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, REFUSAL_RATE, Delivery, Producer, Verdict
from webhook.security.v1.admission_service_pb2 import AdmitRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook_security import catalogue
from webhook_security.limits import rates
from webhook_security.limits.rates import Limits
from webhook_security.settings import SecuritySection
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

BODY = b'{"action":"opened"}'
TEN = {"rate_limit_burst": "10s"}
"""With a rate of one per second: ten at once, and no eleventh within a test's few milliseconds."""


async def admitted(stub: AdmissionServiceStub, deliveries: Sequence[Delivery]) -> list[Verdict]:
    return list((await stub.Admit(AdmitRequest(deliveries=deliveries))).verdicts)


def passed(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.outcome == OUTCOME_ADMITTED and not verdict.shaped for verdict in verdicts)


@pytest.fixture
async def replicas(service: Any, valkey: RedisSection) -> AsyncIterator[Callable[..., Any]]:
    """`await replicas(security)`: two services that share a Redis."""
    async with AsyncExitStack() as stack:

        async def start(security: dict[str, Any]) -> tuple[AdmissionServiceStub, AdmissionServiceStub]:
            one = await stack.enter_async_context(service(valkey, security=security))
            two = await stack.enter_async_context(service(valkey, security=security))
            return AdmissionServiceStub(one), AdmissionServiceStub(two)

        yield start


async def test_two_replicas_let_through_exactly_the_limit(replicas: Any, sign: Any, deliver: Any) -> None:
    rate = 100
    one, two = await replicas({"global_rate_limit": rate, "rate_limit_burst": "1s"})
    batch = [deliver("jira", BODY, sign.jira(BODY))] * 16
    started_s = time.monotonic()
    answers = await asyncio.gather(*(admitted(stub, batch) for _ in range(10) for stub in (one, two)))
    elapsed_s = time.monotonic() - started_s
    # The bucket, and what was added to it meanwhile.
    assert rate <= sum(map(passed, answers)) <= rate + math.ceil(elapsed_s * rate)


async def test_not_one_more_than_the_limit(replicas: Any, sign: Any, deliver: Any) -> None:
    one, two = await replicas({**TEN, "per_tool_rate_limits": {"jira": 1}})
    batch = [deliver("jira", BODY, sign.jira(BODY))] * 8
    answers = await asyncio.gather(*(admitted(stub, batch) for stub in (one, two)))
    refused = [verdict for verdicts in answers for verdict in verdicts if verdict.outcome != OUTCOME_ADMITTED]
    assert sum(map(passed, answers)) == 10
    assert {verdict.refusal for verdict in refused} == {REFUSAL_RATE}
    assert all(0 < verdict.retry_after.ToMilliseconds() <= 1000 for verdict in refused)
    assert not any(verdict.HasField("event") for verdict in refused)


async def test_room_comes_back_at_the_rate(replicas: Any, sign: Any, deliver: Any) -> None:
    one, _ = await replicas({"global_rate_limit": 1000, "rate_limit_burst": "10ms"})
    delivery = deliver("jira", BODY, sign.jira(BODY))
    assert passed(await admitted(one, [delivery] * 60)) == 10
    await asyncio.sleep(0.05)
    # The bucket holds no more than the burst, however long one waits.
    assert passed(await admitted(one, [delivery] * 60)) == 10


@pytest.mark.parametrize(
    ("tool", "over_limit", "outcome"),
    [
        ("github", None, "shaped"),
        ("jira", None, "refused"),
        ("github", "reject", "refused"),
        ("jira", "shape", "shaped"),
    ],
)
async def test_what_is_over_the_limit(
    replicas: Any, sign: Any, deliver: Any, *, tool: str, over_limit: str | None, outcome: str
) -> None:
    sources = {tool: {"over_limit": over_limit}} if over_limit else {}
    one, _ = await replicas({**TEN, "per_tool_rate_limits": {tool: 1}, "sources": sources})
    labels = {"tool": tool, "limit": "tool", "action": "shape" if outcome == "shaped" else "reject"}
    before = REGISTRY.get_sample_value("webhook_security_over_limit_total", labels) or 0
    verdicts = await admitted(one, [deliver(tool, BODY, getattr(sign, tool)(BODY))] * 13)
    if outcome == "shaped":
        assert [verdict.outcome for verdict in verdicts] == [OUTCOME_ADMITTED] * 13
        assert [verdict.shaped for verdict in verdicts] == [False] * 10 + [True] * 3
        assert all(verdict.event.sealed for verdict in verdicts)
    else:
        assert [verdict.refusal for verdict in verdicts] == [0] * 10 + [REFUSAL_RATE] * 3
    assert REGISTRY.get_sample_value("webhook_security_over_limit_total", labels) == before + 3


async def test_a_producer_is_told_even_where_a_sender_would_be_shaped(replicas: Any, deliver: Any) -> None:
    one, _ = await replicas({**TEN, "per_tool_rate_limits": {"github": 1}})
    produced = deliver("github", BODY, {})
    produced.producer.CopyFrom(Producer(key_id="k", type="push", delivery_id="1"))
    verdicts = await admitted(one, [produced] * 11)
    assert [verdict.refusal for verdict in verdicts] == [0] * 10 + [REFUSAL_RATE]


@pytest.mark.parametrize("name", sorted(catalogue.load("X-Webhook-Signature")))
def test_no_sender_loses_by_its_rate(name: str) -> None:
    row = catalogue.load("X-Webhook-Signature")[name]
    after_429 = row.sender.on_429 or row.sender.on_4xx
    loses = not row.sender.retries or after_429.startswith("lost") or "deleted" in row.sender.on_4xx
    assert (row.over_limit or ("reject" if row.sender.retries else "shape")) == (
        "shape" if loses else "reject"
    )


async def test_tenants_have_a_limit_of_their_own(replicas: Any, sign: Any, deliver: Any) -> None:
    beta = {"signature_secrets": {"jira": "env:JIRA_WEBHOOK_SECRET", "github": "env:GITHUB_WEBHOOK_SECRET"}}
    one, two = await replicas({**TEN, "per_tenant_rate_limits": {"beta": 1}, "tenants": {"beta": beta}})
    jira = deliver("jira", BODY, sign.jira(BODY), tenant="beta")
    github = deliver("github", BODY, sign.github(BODY), tenant="beta")
    assert passed(await admitted(one, [jira] * 8)) == 8
    # The rest, whichever tool and whichever replica it comes through.
    assert passed(await admitted(two, [github] * 8)) == 2
    assert passed(await admitted(two, [deliver("jira", BODY, sign.jira(BODY))] * 20)) == 20


async def test_a_tool_has_its_rate_for_each_tenant(replicas: Any, sign: Any, deliver: Any) -> None:
    beta = {"signature_secrets": {"jira": "env:JIRA_WEBHOOK_SECRET"}}
    one, _ = await replicas({**TEN, "per_tool_rate_limits": {"jira": 1}, "tenants": {"beta": beta}})
    for tenant in ("", "beta"):
        batch = [deliver("jira", BODY, sign.jira(BODY), tenant=tenant)] * 12
        assert passed(await admitted(one, batch)) == 10


async def test_what_nobody_believes_uses_up_nothing(replicas: Any, sign: Any, deliver: Any) -> None:
    one, two = await replicas({**TEN, "global_rate_limit": 1})
    forged = deliver("jira", BODY, sign.jira(BODY, secret="guessed"))
    refused = [verdict for _ in range(3) for verdict in await admitted(one, [forged] * 64)]
    assert REFUSAL_RATE not in {verdict.refusal for verdict in refused}
    assert passed(await admitted(two, [deliver("jira", BODY, sign.jira(BODY))] * 64)) == 10


async def test_a_noisy_source_leaves_a_quiet_one_its_share(replicas: Any, sign: Any, deliver: Any) -> None:
    one, two = await replicas({**TEN, "global_rate_limit": 10})
    noisy = deliver("jira", BODY, sign.jira(BODY))
    quiet = deliver("github", BODY, sign.github(BODY))
    assert passed(await admitted(one, [quiet])) == 1
    took = sum([passed(await admitted(stub, [noisy] * 200)) for stub in (one, two)])
    # Half of what may come at once is for all, a quarter for each of the two.
    assert 74 <= took <= 85
    assert passed(await admitted(two, [quiet] * 20)) == 20
    assert passed(await admitted(one, [noisy] * 200)) <= 10


async def test_a_noisy_source_alone_has_it_all(replicas: Any, sign: Any, deliver: Any) -> None:
    one, two = await replicas({**TEN, "global_rate_limit": 1})
    noisy = deliver("jira", BODY, sign.jira(BODY))
    assert [passed(await admitted(stub, [noisy] * 3)) for stub in (one, two, one, two)] == [3, 3, 3, 1]


async def test_without_rate_limiting_nothing_is_counted(
    replicas: Any, redis: store.Client, sign: Any, deliver: Any
) -> None:
    one, _ = await replicas({"global_rate_limit": 1, "enable_rate_limiting": False})
    assert passed(await admitted(one, [deliver("jira", BODY, sign.jira(BODY))] * 5)) == 5
    assert await redis.keys("rate:*") == []


async def test_believed_traffic_passes_while_redis_is_away(
    make_judge: Any, redis_server: Any, sign: Any, deliver: Any
) -> None:
    client = store.connect(redis_server.settings)
    now_s = 0.0
    counted = Limits(client, SecuritySection(global_rate_limit=1), clock=lambda: now_s)
    judge = make_judge()

    def cases() -> list[Any]:
        delivery = deliver("jira", BODY, sign.jira(BODY))
        return judge.admission.prove([judge.admission.case(delivery, Verdict()) for _ in range(4)])

    assert len(await counted.exceeded(cases())) == 3
    redis_server.kill()
    before = REGISTRY.get_sample_value("webhook_security_limits_unavailable_total") or 0
    assert await counted.exceeded(cases()) == []
    # The outage is noticed once, not waited for by every batch.
    assert await counted.exceeded(cases()) == []
    assert REGISTRY.get_sample_value("webhook_security_limits_unavailable_total") == before + 1
    redis_server.start()
    await redis_server.answering()
    await client.flushall()
    now_s = 2.0
    # The script is loaded anew, and counts again.
    assert len(await counted.exceeded(cases())) == 3
    await client.aclose()


async def test_a_redis_that_hangs_holds_nobody_up(
    make_judge: Any, redis_server: Any, sign: Any, deliver: Any, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.connect(redis_server.settings)
    now_s = 0.0
    counted = Limits(client, SecuritySection(global_rate_limit=1), clock=lambda: now_s)
    judge = make_judge()
    cases = judge.admission.prove(
        [judge.admission.case(deliver("jira", BODY, sign.jira(BODY)), Verdict())] * 4
    )
    assert len(await counted.exceeded(cases)) == 3
    monkeypatch.setattr(rates, "LONGEST_WAIT_S", 0.05)
    redis_server.send(signal.SIGSTOP)
    started_s = time.monotonic()
    assert await counted.exceeded(cases) == []
    assert time.monotonic() - started_s < 2
    redis_server.send(signal.SIGCONT)
    monkeypatch.undo()
    now_s = 2.0
    # The reply that nobody waited for is not taken for the next one.
    assert len(await counted.exceeded(cases)) in {3, 4}
    assert len(await counted.exceeded(cases[:2])) == 2
    await client.aclose()


async def test_a_batch_of_many_sources(replicas: Any, redis: store.Client, deliver: Any) -> None:
    one, _ = await replicas({**TEN, "global_rate_limit": 1})
    batch = []
    for number in range(256):
        produced = deliver(f"tool-{number}", BODY, {})
        produced.producer.CopyFrom(Producer(key_id="k", type="push", delivery_id=str(number)))
        batch.append(produced)
    assert passed(await admitted(one, batch)) == 10
    # Tools without a route share what is one tenant's share: to make names up brings nobody more.
    assert await redis.zcard("rate:{limits}:active") == 1


async def test_a_clock_that_goes_back_stops_nobody(
    replicas: Any, redis: store.Client, sign: Any, deliver: Any
) -> None:
    one, _ = await replicas({"global_rate_limit": 10})
    in_an_hour_us = int((time.time() + 3600) * 1e6)
    await redis.set("rate:{limits}:global", f"3000000 {in_an_hour_us}")
    jira = deliver("jira", BODY, sign.jira(BODY))
    assert passed(await admitted(one, [jira] * 5)) == 3
    await asyncio.sleep(0.11)
    assert passed(await admitted(one, [jira] * 5)) >= 1


async def test_buckets_do_not_stay(replicas: Any, redis: store.Client, sign: Any, deliver: Any) -> None:
    one, _ = await replicas(
        {
            "global_rate_limit": 2,
            "per_tool_rate_limits": {"jira": 1},
            "per_tenant_rate_limits": {"default": 1},
        }
    )
    await admitted(one, [deliver("jira", BODY, sign.jira(BODY))] * 5)
    buckets = [key for key in await redis.keys("rate:*") if not key.endswith(b":active")]
    lives_ms = Counter({key: await redis.pttl(key) for key in buckets})
    assert len(buckets) == 4
    assert all(0 < left <= 2000 for left in lives_ms.values())
