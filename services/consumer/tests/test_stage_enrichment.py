"""Stage two, from a changed context to one that is understood."""

import asyncio
import time

from webhook.context.v1.context_service_pb2 import Append, BatchGetContextsRequest, UpdateContextRequest
from webhook_consumer.entry import DONE, Cause, Entry
from webhook_consumer.metrics import ENRICHMENTS
from webhook_consumer.queue.redis import RedisQueue
from webhook_consumer.stages import enrichment as stage_two
from webhook_consumer.stages.enrichment import EnrichmentStage
from webhook_consumer.workers import handling
from webhook_shared.errors import InvalidArgument, NotFound, Unavailable

WORKED_ON_S = 0.5


def happens(town, context_id, event_id, tenant="default"):
    append = Append(tenant=tenant, context_id=context_id, kind="issue", title="Problem")
    append.event.event_id = event_id
    append.event.action = "opened"
    append.event.text = "It does not work."
    append.event.occurred_time.FromSeconds(1_790_000_000)
    town.contexts.add(append)


async def changed(town, context_id, tenant="default"):
    await town.redis.xadd(town.enrichment.stream, {"tenant": tenant, "context_id": context_id})


async def is_done(town):
    async with town.redis.pipeline(transaction=True) as at_one_instant:
        lane = town.enrichment
        at_one_instant.xlen(lane.stream).zcard(lane.delayed).zcard(lane.parked)
        return not any(await at_one_instant.execute())


async def test_a_changed_context_is_understood_and_the_next_time_only_the_news_is_read(town):
    happens(town, "c:1", "e1")
    happens(town, "c:1", "e2")
    async with town.context_store(), town.understanding(), town.consumer():
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
        happens(town, "c:1", "e3")
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
    enrichment = town.contexts.contexts["default", "c:1"].enrichment
    assert enrichment.summary == "e1 e2 e3"
    assert (enrichment.covered_event_count, enrichment.covered_event_id) == (3, "e3")
    assert list(enrichment.vector) == [float(v) for v in enrichment.vector] != []
    assert (enrichment.embedding_model.provider, enrichment.embedding_model.dimension) == ("local", 2)
    assert [factor.name for factor in enrichment.importance_factors] == ["activity"]
    assert [[h.event_id for h in s.happenings] for s in town.intelligence.subjects] == [["e1", "e2"], ["e3"]]
    happening = town.intelligence.subjects[0].happenings[0]
    assert (happening.kind, happening.action, happening.occurred_time.seconds) == (
        "issue",
        "opened",
        1_790_000_000,
    )


class Lateness:
    """Of events; looked at by stage two."""

    def __init__(self, *times_s):
        self.times_s = list(times_s)
        self.looks = 0

    async def __call__(self):
        self.looks += 1
        return self.times_s.pop(0) if len(self.times_s) > 1 else self.times_s[0]


class NothingKnown:
    """A context store in which there is nothing; asked when a stage goes to work."""

    asked = 0

    async def known(self, *_, **__):
        self.asked += 1
        raise NotFound("CONTEXT_NOT_FOUND", "there is no such context")


class Intelligent:
    """Has nothing to do."""

    async def analyze(self, _):
        raise AssertionError


ENTRY = Entry(b"1-0", {b"tenant": b"default", b"context_id": b"c:1"})


async def test_while_events_are_late_contexts_wait():
    late, contexts = Lateness(3.0, 0.5, 0.1), NothingKnown()
    began = time.monotonic()
    await EnrichmentStage(contexts, Intelligent(), late_s=late).handle([ENTRY])
    assert (late.looks, contexts.asked) == (3, 1)
    assert time.monotonic() - began >= 2 * stage_two.LOOKS_EVERY_S


async def test_they_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(stage_two, "GIVES_WAY_S", 0.2)
    late, contexts = Lateness(60.0), NothingKnown()
    began = time.monotonic()
    await EnrichmentStage(contexts, Intelligent(), late_s=late).handle([ENTRY])
    assert contexts.asked == 1
    assert time.monotonic() - began >= 0.2


async def test_they_wait_the_shorter_the_less_late_events_are(monkeypatch):
    monkeypatch.setattr(stage_two, "GIVES_WAY_TIMES", 2)
    late, contexts = Lateness(0.15), NothingKnown()
    began = time.monotonic()
    await EnrichmentStage(contexts, Intelligent(), late_s=late).handle([ENTRY])
    assert contexts.asked == 1
    assert 0.3 <= time.monotonic() - began < stage_two.GIVES_WAY_S / 2


async def test_a_consumer_that_is_to_end_does_not_wait_for_late_events(town, monkeypatch):
    async def late(_):
        return 60.0

    monkeypatch.setattr(RedisQueue, "late_s", late)
    happens(town, "c:1", "e1")
    async with town.context_store(), town.understanding():
        async with town.consumer():
            await changed(town, "c:1")
            await town.until(lambda: stage_two.metrics.giving_way._value.get() == 1)
            ended = time.monotonic()
        assert time.monotonic() - ended < stage_two.GIVES_WAY_S / 3
        assert town.contexts.contexts["default", "c:1"].enrichment.summary == "e1"
        assert await is_done(town)


async def test_what_a_model_has_left_for_later_is_sent_again(town):
    happens(town, "c:1", "e1")
    happens(town, "c:1", "e2")
    town.intelligence.defers = 1
    async with town.context_store(), town.understanding(), town.consumer():
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
        enrichment = town.contexts.contexts["default", "c:1"].enrichment
        assert (enrichment.covered_event_count, enrichment.covered_event_id) == (2, "e1")
        town.intelligence.defers = 0
        happens(town, "c:1", "e3")
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
    sent = [[h.event_id for h in s.happenings] for s in town.intelligence.subjects]
    assert sent == [["e1", "e2"], ["e2", "e3"]]


async def test_all_that_is_new_is_read_however_much_it_is(town):
    for number in range(300):
        happens(town, "c:1", f"e{number}")
    async with town.context_store(), town.understanding(), town.consumer():
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
    [subject] = town.intelligence.subjects
    assert len(subject.happenings) == 300
    asked = [r.max_events for r in town.contexts.requests if isinstance(r, BatchGetContextsRequest)]
    assert len(asked) == 2


async def test_contexts_of_several_tenants_share_a_batch_and_each_is_understood_once(town):
    for tenant in ("a", "b"):
        for number in range(5):
            happens(town, f"c:{number}", f"e-{tenant}-{number}", tenant)
            await changed(town, f"c:{number}", tenant)
            await changed(town, f"c:{number}", tenant)
    settings = {"enrichment": {"num_workers": 1, "batch_size": 50}}
    async with town.context_store(), town.understanding(), town.consumer(**settings):
        await town.until(lambda: is_done(town))
    assert {(s.tenant, s.context_id) for s in town.intelligence.subjects} == set(town.contexts.contexts)
    for (tenant, context_id), context in town.contexts.contexts.items():
        assert context.enrichment.summary == f"e-{tenant}-{context_id[2:]}"


async def test_what_changes_while_it_is_read_is_written_so_far_and_comes_again(town):
    happens(town, "c:1", "e1")
    moved = []

    def somebody_appends():
        if not moved:
            moved.append(happens(town, "c:1", "e2"))

    town.contexts.between = somebody_appends
    failed = ENRICHMENTS.failed.labels("c")._value.get()
    async with town.context_store(), town.understanding(), town.consumer():
        await changed(town, "c:1")
        await town.until(lambda: is_done(town))
    assert town.contexts.contexts["default", "c:1"].enrichment.summary == "e1 e2"
    # Each event was understood once: what was known by then was kept, without claiming to be all.
    updates = [request for request in town.contexts.requests if isinstance(request, UpdateContextRequest)]
    assert [(u.context.enrichment.summary, bool(u.etag)) for u in updates] == [
        ("e1", True),
        ("e1", False),
        ("e1 e2", True),
    ]
    assert len(town.intelligence.subjects) == 2
    assert ENRICHMENTS.failed.labels("c")._value.get() == failed


async def test_what_never_holds_still_is_understood_as_far_as_it_was_read(town):
    happens(town, "c:1", "e0")
    state = {"next": 1}

    def somebody_appends():
        happens(town, "c:1", f"e{state['next']}")
        state["next"] += 1

    town.contexts.between = somebody_appends
    async with town.context_store(), town.understanding(), town.consumer():
        await changed(town, "c:1")
        held = lambda: town.contexts.contexts["default", "c:1"].enrichment  # noqa: E731
        await town.until(lambda: held().covered_event_count >= 3)
        # Written without claiming that all is read; the context stays queued.
        assert any(isinstance(r, UpdateContextRequest) and not r.etag for r in town.contexts.requests)
        town.contexts.between = lambda: None
        await town.until(lambda: is_done(town))
    expected = " ".join(f"e{number}" for number in range(state["next"]))
    assert held().summary == expected
    assert await town.dead() == []


async def test_a_provider_that_is_away_delays_and_never_buries(town, monkeypatch):
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 0.02)
    state = {"away": True}
    town.intelligence.refuse = lambda _: (
        Unavailable("PROVIDER_UNREACHABLE", "no answer", retry_after_s=0.01) if state["away"] else None
    )
    for number in range(4):
        happens(town, f"c:{number}", f"e{number}")
        await changed(town, f"c:{number}")
    # What all meet is an outage: nothing is counted, and no breaker opens.
    easily = {"failure_count": 1, "open_time": "5m"}
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer(max_retries=0, circuit_breaker=easily, enrichment={"num_workers": 1}),
    ):
        await town.until(lambda: len(town.intelligence.subjects) >= 40)
        assert await town.redis.zcard(town.enrichment.delayed) == 0
        state["away"] = False
        await town.until(lambda: is_done(town))
    assert all(context.enrichment.summary for context in town.contexts.contexts.values())
    assert await town.redis.xlen(town.enrichment.dead_letters) == 0


async def test_a_store_that_goes_before_it_is_written_to_pauses_the_stage(town, monkeypatch):
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 0.02)
    state = {"away": True, "refused": 0}

    def refuse():
        if state["away"]:
            state["refused"] += 1
            raise Unavailable("STORE_UNREACHABLE", "Redis is being replaced")

    town.contexts.between = refuse
    for number in range(2):
        happens(town, f"c:{number}", f"e{number}")
        await changed(town, f"c:{number}")
    one_worker = {"num_workers": 1}
    async with town.context_store(), town.understanding(), town.consumer(enrichment=one_worker):
        # Two contexts, four attempts of the channel for each: it is the second round by then.
        await town.until(lambda: state["refused"] > 8)
        assert await town.redis.zcard(town.enrichment.delayed) == 0
        state["away"] = False
        await town.until(lambda: is_done(town))
    assert all(context.enrichment.summary for context in town.contexts.contexts.values())


async def test_intelligence_away_pauses_stage_two_and_not_stage_one(town):
    happens(town, "c:1", "e1")
    await changed(town, "c:1")
    async with town.context_store(), town.consumer():
        sent = await town.send(1)
        await town.until(lambda: sent in town.contexts.events())
        await asyncio.sleep(WORKED_ON_S)
        assert await town.redis.zcard(town.enrichment.delayed) == 0
        assert await town.redis.xlen(town.enrichment.stream) == 1
        async with town.understanding():
            await town.until(lambda: is_done(town), within_s=40)
    assert town.contexts.contexts["default", "c:1"].enrichment.summary == "e1"


async def test_a_deleted_context_is_done_and_a_hopeless_one_is_dead(town):
    town.intelligence.refuse = lambda s: InvalidArgument("nothing to read") if s.context_id == "c:2" else None
    for number in (1, 2):
        happens(town, f"c:{number}", f"e{number}")
        await changed(town, f"c:{number}")
    await changed(town, "c:gone")
    await town.redis.xadd(town.enrichment.stream, {"hello": "world"})
    async with town.context_store(), town.understanding(), town.consumer():
        await town.until(lambda: is_done(town))
    letters = await town.redis.xrange(town.enrichment.dead_letters)
    causes = {fields.get(b"context_id", b""): fields[b"cause"].decode() for _, fields in letters}
    assert causes == {b"c:2": Cause.PERMANENT, b"": Cause.UNDECODABLE}


async def test_what_was_queued_a_moment_ago_is_left_alone_for_a_while():
    stage = EnrichmentStage(Deserted(), Deserted(), late_s=Lateness(0.0), settle_s=0.1)
    now_ms = time.time_ns() // 1_000_000
    began = time.monotonic()
    assert await stage.handle([queued(now_ms - 10_000), queued(now_ms - 100)]) == [DONE, DONE]
    assert time.monotonic() - began < 0.1
    # A clock that is ahead holds nobody up for longer.
    assert await stage.handle([queued(now_ms + 3_600_000)]) == [DONE]
    assert 0.09 < time.monotonic() - began < 5


class Deserted:
    """A context store whose contexts have all been deleted, so that nothing is left to understand."""

    async def known(self, tenant, context_ids, most_events):
        return [NotFound("CONTEXT_NOT_FOUND", "gone")] * len(context_ids)

    async def analyze(self, contexts):
        assert not contexts
        return []


def queued(at_ms):
    return Entry(f"{at_ms}-0".encode(), {b"tenant": b"default", b"context_id": f"c:{at_ms}".encode()})
