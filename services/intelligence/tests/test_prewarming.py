"""Prediction over the wire and between replicas, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.prediction import prewarming as module
from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import Policy
from webhook_intelligence.prediction.prewarming import READ_BLOCK_S, STREAM, Prewarming
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client, connect
from webhook_shared.rpc.identity import Role
from webhook_shared.settings import RedisSection

from services.intelligence.tests.conftest import House, Started, counted

INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
PULL, ISSUE = "github:o/h:pull_request:1", "github:o/h:issue:2"


@asynccontextmanager
async def replica(redis: RedisSection) -> AsyncIterator[Prewarming]:
    client, reader = connect(redis), connect(redis, block_s=READ_BLOCK_S)
    async with Prewarming(client, reader, Policy()) as prewarming:
        yield prewarming
    await reader.aclose()
    await client.aclose()


def habit(times: int = 30, *, start_s: float = 0.0) -> list[Observation]:
    """First the one, a minute later the other, every hour."""
    return [
        Observation(start_s + 3600.0 * i + 60.0 * j, ObservationKind.ACCESS, context_id, "ann")
        for i in range(times)
        for j, context_id in enumerate((PULL, ISSUE))
    ]


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.01)


async def learned(prewarming: Prewarming, count: int, tenant: str = "acme") -> None:
    async def enough() -> bool:
        return (await prewarming.predictor(tenant)).observation_count >= count

    await until(enough)


async def predicted(prewarming: Prewarming, tenant: str = "acme") -> list[str]:
    predictor = await prewarming.predictor(tenant)
    predictor.observe(Observation(1e9, ObservationKind.ACCESS, PULL))
    return [one.context_id for one in predictor.predict([PULL], 10, include_off=False)]


async def test_what_one_replica_sees_all_learn(valkey: RedisSection) -> None:
    async with replica(valkey) as one, replica(valkey) as other:
        one.note("acme", habit()[:30])
        await learned(other, 30)
        other.note("acme", habit()[30:])
        await learned(one, 60)
        await learned(other, 60)
        assert (await one.predictor("acme")).state() == (await other.predictor("acme")).state()
        assert await predicted(other) == [ISSUE]


async def test_each_observation_is_counted_by_one_replica(valkey: RedisSection) -> None:
    before = counted("webhook_ai_prewarm_observations_total", result="learned")
    async with replica(valkey) as one, replica(valkey) as other:
        one.note("acme", habit())
        await learned(one, 60)
        await learned(other, 60)
    assert counted("webhook_ai_prewarm_observations_total", result="learned") - before == 60


async def test_what_is_learned_outlives_the_process_and_the_stream(
    valkey: RedisSection, redis: Client
) -> None:
    async with replica(valkey) as prewarming:
        prewarming.note("acme", habit())
        await learned(prewarming, 60)
    await redis.delete(STREAM)
    async with replica(valkey) as prewarming:
        assert (await prewarming.predictor("acme")).observation_count == 60
        assert await predicted(prewarming) == [ISSUE]


async def test_a_model_that_was_not_kept_is_learned_from_the_stream_and_nothing_twice(
    valkey: RedisSection, redis: Client
) -> None:
    async with replica(valkey) as prewarming:
        prewarming.note("acme", habit())
        await learned(prewarming, 60)
    async with replica(valkey) as prewarming:
        prewarming.note("acme", habit(1))
        await learned(prewarming, 62)
        assert (await prewarming.predictor("acme")).observation_count == 62
    await redis.delete("prewarm:{acme}")
    async with replica(valkey) as prewarming:
        await learned(prewarming, 62)


async def test_a_kept_model_that_is_rubbish_is_learned_anew(valkey: RedisSection, redis: Client) -> None:
    async with replica(valkey) as prewarming:
        prewarming.note("acme", habit())
        await learned(prewarming, 60)
    for rubbish in (b"", b"rubbish", module._deflate({"format": 1, "through": [0, 0], "model": {}})):
        await redis.set("prewarm:{acme}", rubbish)
        async with replica(valkey) as prewarming:
            await learned(prewarming, 60)


async def test_rubbish_in_the_stream_is_passed_over(valkey: RedisSection, redis: Client) -> None:
    await redis.xadd(STREAM, {"what": "is this"})
    await redis.xadd(STREAM, {"tenant": "acme", "by": "x", "seen": '[["soon","event","a",""]]'})
    await redis.xadd(STREAM, {"tenant": "acme", "by": "x", "seen": "[[1"})
    async with replica(valkey) as prewarming:
        prewarming.note("acme", habit(2))
        await learned(prewarming, 4)


async def test_names_of_people_are_not_kept(valkey: RedisSection, redis: Client) -> None:
    async with replica(valkey) as prewarming:
        prewarming.note("acme", [Observation(1.0, ObservationKind.EVENT, PULL, "ada.lovelace")])
        await learned(prewarming, 1)
    ((_, entry),) = await redis.xrange(STREAM)
    assert b"lovelace" not in b"".join(entry.values())


async def test_tenants_are_few_in_memory_and_none_is_lost(
    valkey: RedisSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TENANTS", 2)
    async with replica(valkey) as prewarming:
        for tenant in ("a", "b", "c", "d"):
            prewarming.note(tenant, habit(3))
        for tenant in ("d", "c", "b", "a"):
            await learned(prewarming, 6, tenant)
        assert len(prewarming._models) <= 2


async def test_it_heals_from_an_emptied_and_from_a_dead_server(redis_server: Any) -> None:
    client = connect(redis_server.settings)
    async with replica(redis_server.settings) as prewarming:
        prewarming.note("acme", habit(5))
        await learned(prewarming, 10)
        await client.flushall()
        prewarming.note("acme", habit(5, start_s=1e6))
        await learned(prewarming, 20)
        redis_server.kill()
        prewarming.note("acme", habit(1, start_s=2e6))
        # What is in memory answers on.
        assert (await prewarming.predictor("acme")).observation_count == 20
        redis_server.start()
        await redis_server.answering()

        async def goes_on() -> bool:
            prewarming.note("acme", habit(1, start_s=3e6))
            await asyncio.sleep(0.05)
            return (await prewarming.predictor("acme")).observation_count > 22

        await until(goes_on)
    await client.aclose()


async def test_observe_and_predict(house: House, stub: IntelligenceServiceStub) -> None:
    messages = []
    for seen in habit():
        message = pb.Observation(
            kind=pb.OBSERVATION_KIND_ACCESS, context_id=seen.context_id, actor=seen.actor
        )
        message.time.FromNanoseconds(int((1.7e9 + seen.at_s) * 1e9))
        messages.append(message)
    response = await stub.Observe(pb.ObserveRequest(observations=messages))
    assert {status.code for status in response.statuses} == {0}
    assert len(response.statuses) == 60

    async def answered() -> pb.PredictResponse:
        return await stub.Predict(pb.PredictRequest(context_ids=[PULL], include_off=True))

    async def seen_all() -> bool:
        return (await answered()).observation_count == 60

    await until(seen_all)
    # The last use of the issue is long ago, but nothing has happened since: it is still in use.
    await stub.Observe(
        pb.ObserveRequest(observations=[pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id="x:y:z:1")])
    )

    async def expected() -> bool:
        return bool((await answered()).predictions)

    await until(expected)
    found = await answered()
    assert found.mode == pb.PREDICTION_MODE_SHADOW
    (prediction,) = found.predictions
    assert (prediction.context_id, prediction.because_context_id, prediction.on) == (ISSUE, PULL, True)
    assert prediction.confidence > 0.8
    rules = {rule.name: rule for rule in found.rules}
    assert set(rules) == {"links", "association", "succession"}
    assert rules["association"].on
    assert rules["association"].precision > 0.8
    assert rules["association"].saved_count > 10


async def test_events_that_are_analysed_are_observed(stub: IntelligenceServiceStub) -> None:
    subject = pb.Subject(
        context_id=PULL,
        title="Add retry",
        happenings=[pb.Happening(event_id="e", kind="pull_request", action="opened", actor="ann")],
        linked_context_ids=[ISSUE],
    )
    await stub.Analyze(pb.AnalyzeRequest(subjects=[subject, pb.Subject(title="nothing has happened here")]))

    async def linked() -> bool:
        found = await stub.Predict(pb.PredictRequest(include_off=True))
        return [one.context_id for one in found.predictions] == [ISSUE] and found.observation_count == 1

    await until(linked)


async def test_a_bad_observation_fails_alone(stub: IntelligenceServiceStub, redis: Client) -> None:
    good = pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id=PULL)
    bad = [
        pb.Observation(context_id=PULL),
        pb.Observation(kind=pb.OBSERVATION_KIND_EVENT),
        pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id="x" * 513),
        pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id=PULL, actor="x" * 129),
        pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id=PULL, linked_context_ids=["x"] * 65),
        pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id=PULL, linked_context_ids=[""]),
    ]
    response = await stub.Observe(pb.ObserveRequest(observations=[good, *bad, good]))
    codes = [status.code for status in response.statuses]
    assert codes == [0, *[INVALID_ARGUMENT] * len(bad), 0]
    # A clock that is ahead can't stop learning: later than now is now.
    ahead = pb.Observation(kind=pb.OBSERVATION_KIND_EVENT, context_id=PULL)
    ahead.time.FromJsonString("2999-01-01T00:00:00Z")
    await stub.Observe(pb.ObserveRequest(observations=[ahead]))

    async def seen() -> bool:
        return (await stub.Predict(pb.PredictRequest())).observation_count == 3

    await until(seen)
    (entry,) = (await redis.xrevrange(STREAM, count=1)) or [None]
    assert b"32472144000" not in entry[1][b"seen"]


async def test_who_may_ask_what(house: House, stub: IntelligenceServiceStub) -> None:
    for call in (
        stub.Predict(pb.PredictRequest(max_predictions=-1)),
        stub.Predict(pb.PredictRequest(max_predictions=101)),
        stub.Predict(pb.PredictRequest(context_ids=["x"] * 65)),
        stub.Observe(pb.ObserveRequest()),
        stub.Observe(pb.ObserveRequest(observations=[pb.Observation()] * 1025)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    reader = await house.stub(roles=(Role.READER,), tenants=("acme",))
    await reader.Predict(pb.PredictRequest())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reader.Observe(pb.ObserveRequest(observations=[pb.Observation()]))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reader.Predict(pb.PredictRequest(tenant="globex"))
    assert from_rpc_error(caught.value).reason == "TENANT_NOT_ALLOWED"


async def test_off_is_off(start: Started, redis: Client) -> None:
    house = await start(AI_PREWARMING_MODE="off")
    stub = await house.stub(roles=(Role.READER, Role.WRITER), tenants=("acme",))
    await stub.Analyze(
        pb.AnalyzeRequest(subjects=[pb.Subject(context_id=PULL, title="x", happenings=[pb.Happening()])])
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Predict(pb.PredictRequest())
    assert from_rpc_error(caught.value).reason == "PREWARMING_OFF"
    assert await redis.exists(STREAM) == 0


async def test_active_says_that_it_is_to_be_acted_on(start: Started) -> None:
    house = await start(AI_PREWARMING_MODE="active")
    stub = await house.stub(roles=(Role.READER,), tenants=("acme",))
    assert (await stub.Predict(pb.PredictRequest())).mode == pb.PREDICTION_MODE_ACTIVE
