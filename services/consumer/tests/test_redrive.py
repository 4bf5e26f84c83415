"""What was given up comes back when somebody says so: a few first, and the rest only if these do well."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook_consumer.dead_letters.fingerprint import fingerprint
from webhook_consumer.dead_letters.letters import DeadLetters, Letter, LetterFilter
from webhook_consumer.dead_letters.redrive import Canaries, Manner, Phase, Redrive, Result
from webhook_consumer.entry import DONE, Cause, Dead, Retry
from webhook_consumer.failures.retry import RetryPolicy
from webhook_shared.errors import InvalidArgument, from_rpc_error

from services.consumer.tests.test_admin import admin

FAST = Manner(canary_timeout_s=5.0, per_second=10_000)
ALL = LetterFilter()


class Morgue:
    """Dead letters, and the ways back."""

    def __init__(self, lab):
        self.lab = lab
        self.letters = DeadLetters(lab.redis, [lab.lane])
        self.canaries = Canaries(lab.redis)
        self.redrive = Redrive(lab.redis, self.letters, self.canaries)

    def worker(self, handler, **more):
        return self.lab.worker(handler, parts={"canaries": self.canaries}, **more)

    async def fill(self, count, **fields):
        """Have so many given up."""
        handler = self.lab.handler(lambda _: Dead(Cause.PERMANENT, "refused: 17 of 'mona'"))
        published = await self.lab.publish(count, **fields)
        before = len(await self.lab.dead())
        async with self.worker(handler):
            await self.lab.until(lambda: self.holds(before + count))
            await self.lab.until(self.lab.is_empty)
        return published

    async def holds(self, count):
        return len(await self.lab.dead()) == count

    async def run(self, which=ALL, manner=FAST):
        return [progress async for progress in self.redrive.run(self.letters.matching(which), manner)]


@pytest.fixture
def morgue(lab):
    return Morgue(lab)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("event evt-1f at 17:03 of 3 tries", "event evt-2a at 18:11 of 4 tries"),
        ("no such field 'secret of mona'", "no such field 'payload'"),
        ("github:octo/hello:issue:1 is gone", "github:octo/world:issue:77 is gone"),
        ("6f1c7c1e-0b8e-4c39-9d0a-2e9c5b6a7d10 refused", "00000000-0000-0000-0000-000000000000 refused"),
        ("Store  Away", "store away"),
    ],
)
def test_what_died_of_the_same_thing_has_one_fingerprint(one, other):
    made = fingerprint("events", "github", "permanent", one)
    assert made == fingerprint("events", "github", "permanent", other)
    assert len(made) == 16
    assert int(made, 16) >= 0


def test_another_reason_tool_stage_or_cause_has_another_fingerprint():
    base = ("events", "github", "permanent", "store away")
    others = [(*base[:at], "something else", *base[at + 1 :]) for at in range(4)]
    assert len({fingerprint(*parts) for parts in (base, *others)}) == 5
    # Stable: operators keep it, and so do entries of yesterday.
    assert fingerprint(*base) == "00eab5c43e94a57e"


async def test_a_redriven_event_is_as_new_but_says_where_it_comes_from(morgue):
    lab = morgue.lab
    await morgue.fill(1, traceparent="00-1-2-01", sealed="s")
    [(letter_id, _)] = await lab.redis.xrange(lab.lane.dead_letters)
    [*_, last] = await morgue.run(manner=Manner(canary=False))
    assert (last.result, last.redriven) == (Result.COMPLETE, 1)
    [(_, fields)] = await lab.redis.xrange(lab.lane.stream)
    assert fields == {
        b"id": b"event-0",
        b"tool": b"github",
        b"tenant": b"default",
        b"traceparent": b"00-1-2-01",
        b"sealed": b"s",
        b"redriven_from": letter_id,
        b"redrives": b"1",
    }
    # It dies again, and comes back again: it remembers.
    async with morgue.worker(lab.handler(lambda _: Dead(Cause.PERMANENT, "refused"))):
        await lab.until(lambda: morgue.holds(1))
    await morgue.run(manner=Manner(canary=False))
    [(_, fields)] = await lab.redis.xrange(lab.lane.stream)
    assert fields[b"redrives"] == b"2"


async def test_canaries_that_do_well_are_followed_by_the_rest(morgue):
    lab = morgue.lab
    published = await morgue.fill(40)
    handler = lab.handler()
    async with morgue.worker(handler):
        told = await morgue.run()
        await lab.until(lab.is_empty)
    assert sorted(handler.seen) == sorted(published)
    last = told[-1]
    assert (last.result, last.redriven, last.succeeded, last.died) == (Result.COMPLETE, 40, 11, 0)
    phases = [progress.phase for progress in told]
    assert phases == sorted(phases)
    assert set(phases) == set(Phase)
    assert await lab.dead() == []


@pytest.mark.parametrize(("survivors", "redriven", "died"), [(0, 1, 1), (1, 11, 10), (5, 11, 6)])
async def test_canaries_that_die_again_stop_it(morgue, survivors, redriven, died):
    lab = morgue.lab
    published = await morgue.fill(30)
    well = set(published[:survivors])
    handler = lab.handler(
        lambda entry: DONE if entry.text(b"id") in well else Dead(Cause.PERMANENT, "refused")
    )
    async with morgue.worker(handler, workers=1, batch=1):
        told = await morgue.run()
        await lab.until(lab.is_empty)
    assert told[-1].result is Result.CANARY_DIED
    assert told[-1].redriven == redriven
    assert 1 <= told[-1].died <= died
    assert await morgue.holds(30 - survivors)
    assert set(handler.seen) == set(published[:redriven])


async def test_canaries_of_which_nobody_hears_stop_it_too(morgue):
    await morgue.fill(5)
    told = await morgue.run(manner=Manner(canary_timeout_s=0.2))
    assert told[-1].result is Result.CANARY_UNDECIDED
    assert told[-1].redriven == 1
    assert await morgue.holds(4)


async def test_a_canary_that_is_tried_again_is_waited_for(morgue):
    await morgue.fill(1)
    handler = morgue.lab.handler(lambda entry: DONE if entry.failures == 1 else Retry("not now"))
    async with morgue.worker(handler):
        told = await morgue.run()
        await morgue.lab.until(morgue.lab.is_empty)
    assert told[-1].result is Result.COMPLETE
    assert len(handler.seen) == 2
    exhausted = morgue.lab.handler(lambda _: Retry("never"))
    await morgue.fill(1)
    async with morgue.worker(exhausted, policy=RetryPolicy(1, 0.001, 0.01)):
        told = await morgue.run()
    assert told[-1].result is Result.CANARY_DIED


async def test_what_dies_again_meanwhile_is_not_redriven_for_ever(morgue):
    lab = morgue.lab
    published = await morgue.fill(25)
    handler = lab.handler(lambda _: Dead(Cause.PERMANENT, "refused"))
    async with morgue.worker(handler):
        told = await morgue.run(manner=Manner(canary=False, per_second=200))
        await lab.until(lab.is_empty)
    assert told[-1].redriven == 25
    assert sorted(handler.seen) == sorted(published)
    assert await morgue.holds(25)


async def test_many_at_once_are_redriven_once_each(morgue):
    lab = morgue.lab
    published = await morgue.fill(60)
    manner = Manner(canary=False, per_second=10_000)
    ends = await asyncio.gather(*(morgue.run(manner=manner) for _ in range(4)))
    assert sum(told[-1].redriven for told in ends) == 60
    entries = await lab.redis.xrange(lab.lane.stream)
    assert sorted(fields[b"id"].decode() for _, fields in entries) == sorted(published)
    assert await morgue.holds(0)


async def test_one_that_is_ended_half_way_has_lost_and_doubled_nothing(morgue):
    lab = morgue.lab
    published = await morgue.fill(60)
    running = morgue.redrive.run(morgue.letters.matching(ALL), Manner(canary=False, per_second=60))
    async for progress in running:
        if progress.redriven >= 24:
            break
    await running.aclose()
    waiting = [fields[b"id"].decode() for _, fields in await lab.redis.xrange(lab.lane.stream)]
    dead = [letter["id"] for letter in await lab.dead()]
    assert len(waiting) == 24
    assert sorted(waiting + dead) == sorted(published)


async def test_it_keeps_to_its_pace_and_to_its_count(morgue):
    await morgue.fill(20)
    started = asyncio.get_running_loop().time()
    told = await morgue.run(manner=Manner(canary=False, per_second=30, most=13))
    assert told[-1].redriven == 13
    assert asyncio.get_running_loop().time() - started >= 0.35
    assert await morgue.holds(7)


async def test_a_full_server_keeps_what_it_can_not_move(own_lab):
    morgue = Morgue(own_lab)
    published = await morgue.fill(20)
    used = (await own_lab.redis.info("memory"))["used_memory"]
    await own_lab.redis.config_set("maxmemory", used // 2)
    with pytest.raises(Exception, match="maxmemory"):
        await morgue.run(manner=Manner(canary=False))
    await own_lab.redis.config_set("maxmemory", 0)
    assert await morgue.holds(20)
    await morgue.run(manner=Manner(canary=False))
    handler = own_lab.handler()
    async with morgue.worker(handler):
        await own_lab.until(own_lab.is_empty)
    assert sorted(handler.seen) == sorted(published)


async def test_letters_of_an_older_version_and_not_ours_can_be_counted_and_redriven(morgue):
    lab = morgue.lab
    await lab.redis.xadd(lab.lane.dead_letters, {"id": "old", "tool": "github", "cause": "permanent"})
    await lab.redis.xadd(lab.lane.dead_letters, {"hello": "world", "redrives": "many"})
    counts, truncated = await morgue.letters.counts(ALL)
    assert {(count.tool, count.cause, count.fingerprint) for count in counts} == {
        ("github", "permanent", ""),
        ("unknown", "", ""),
    }
    assert not truncated
    told = await morgue.run(manner=Manner(canary=False))
    assert told[-1].redriven == 2
    assert Letter(lab.lane, "1-1") == morgue.letters.locate("1-1")


async def test_operators_find_count_and_redrive_by_what_it_died_of(town):
    town.contexts.refuse = lambda append: (
        InvalidArgument("too long") if append.context_id.endswith((":1", ":2", ":3")) else None
    )
    async with town.context_store(), town.understanding(), town.consumer() as running:
        for number in range(1, 4):
            await town.send(number)
        for number in range(4, 6):
            await town.send(number, payload=b"{", tenant="blue")
        await town.until(town.is_empty)
        async with admin(town, running) as stub:
            counted = await stub.CountDeadLetters(messages.CountDeadLettersRequest())
            assert [(kind.count, kind.tool, kind.cause) for kind in counted.counts] == [
                (3, "github", "permanent"),
                (2, "github", "permanent"),
            ]
            refused = counted.counts[0]
            listed = await stub.ListDeadLetters(
                messages.ListDeadLettersRequest(fingerprint=refused.fingerprint)
            )
            assert {letter.fingerprint for letter in listed.dead_letters} == {refused.fingerprint}
            assert len(listed.dead_letters) == 3
            others = messages.ListDeadLettersRequest(cause="permanent", tenant="blue")
            assert len((await stub.ListDeadLetters(others)).dead_letters) == 2
            which = messages.DeadLetterFilter(fingerprint=refused.fingerprint)
            dry = await _redriven(stub, filter=which, dry_run=True)
            assert (dry[-1].result, dry[-1].redriven_count) == (4, 3)
            assert {letter.fingerprint for letter in dry[-1].samples} == {refused.fingerprint}
            assert len(await town.dead()) == 5
            died = await _redriven(stub, filter=which)
            assert (died[-1].result, died[-1].redriven_count, died[-1].died_count) == (2, 1, 1)
            town.contexts.refuse = lambda _: None
            well = await _redriven(stub, filter=which)
            assert (well[-1].result, well[-1].redriven_count) == (1, 3)
            await town.until(town.is_empty)
            [one, _] = (await stub.ListDeadLetters(messages.ListDeadLettersRequest())).dead_letters
            again = await _redriven(
                stub, dead_letter_ids=[one.dead_letter_id], canary_timeout=Duration(seconds=3)
            )
            assert (again[-1].result, again[-1].died_count) == (2, 1)
            [letter, _] = (await stub.ListDeadLetters(messages.ListDeadLettersRequest())).dead_letters
            assert (letter.redriven_from, letter.redrive_count) == (one.dead_letter_id, 1)
    assert len(town.contexts.events()) == 3


async def test_a_redrive_that_can_not_be_meant_is_refused(town):
    cases = [
        ({}, {"all"}),
        ({"all": True, "filter": {"tool": "github"}}, {"all"}),
        ({"dead_letter_ids": ["1-1"], "all": True}, {"dead_letter_ids"}),
        ({"all": True, "max_per_second": -1}, {"max_per_second"}),
        ({"all": True, "max_count": -1}, {"max_count"}),
        ({"dead_letter_ids": ["1-1"]}, set()),
        ({"dead_letter_ids": ["mine"]}, set()),
    ]
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        admin(town, running) as stub,
    ):
        for request, fields in cases:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _redriven(stub, **request)
            error = from_rpc_error(refused.value)
            assert error.fields.keys() == fields, request
            assert error.reason == ("FIELD_INVALID" if fields else "DEAD_LETTER_NOT_FOUND")


async def _redriven(stub, **request):
    return [told async for told in stub.RedriveDeadLetters(messages.RedriveDeadLettersRequest(**request))]
