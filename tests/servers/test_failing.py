"""Dead letters that come back, breakers and pauses: the same on every server, the Cluster included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from webhook_consumer.admin.tools import Tools
from webhook_consumer.dead_letters.letters import DeadLetters, LetterFilter
from webhook_consumer.dead_letters.redrive import Canaries, Manner, Phase, Redrive, Result
from webhook_consumer.entry import DONE, Cause, Entry, Outcome, Retry
from webhook_consumer.failures.breaker import BreakerPolicy, Breakers, State, Tally
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.metrics import EVENTS
from webhook_consumer.queue.redis import Burial
from webhook_consumer.workers.worker import Worker

from tests.servers.ledger import LIMITS
from tests.servers.machines import until
from tests.servers.queue import Line, Queue
from tests.servers.test_conformance import read

pytestmark = pytest.mark.asyncio(loop_scope="session")

FAST = Manner(canary_timeout_s=10.0, per_second=10_000)
TERMS = RetryPolicy(max_retries=1000, base_s=0.005, cap_s=0.02)
BREAKER = BreakerPolicy(failures=4, share=0.5, open_s=0.1, longest_open_s=0.2, probes=2)


class Handler:
    """Answers as told, and remembers."""

    def __init__(self, answer: Callable[[Entry], Outcome] = lambda _: DONE) -> None:
        self._answer = answer
        self.seen: list[Entry] = []

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        self.seen += entries
        return [self._answer(entry) for entry in entries]

    @property
    def names(self) -> list[str]:
        return [entry.text(b"id") for entry in self.seen]


async def _buried(queue: Queue, line: Line, *numbers: int, tool: str = "github") -> DeadLetters:
    """Have these given up; all dead letters."""
    await line.publish(*numbers, tool=tool)
    ids = (await read(queue, len(numbers))).values()
    burials = [Burial(entry_id, Cause.PERMANENT, "refused", 1, f"like-{tool}") for entry_id in ids]
    assert await queue.bury(burials) == []
    return DeadLetters(line.client, [queue.lane])


async def _is_at_rest(queue: Queue) -> bool:
    counts = await queue.counts()
    return not (counts.waiting or counts.in_flight or counts.delayed)


async def test_one_kind_of_dead_letters_comes_back_behind_its_canaries_and_others_stay(
    queue: Queue, line: Line
) -> None:
    await _buried(queue, line, 1, tool="jira")
    letters = await _buried(queue, line, *range(2, 17))
    counts, _ = await letters.counts(LetterFilter())
    assert {kind.fingerprint: kind.count for kind in counts} == {"like-github": 15, "like-jira": 1}
    canaries, handler = Canaries(line.client), Handler()
    async with (
        line.queue() as mine,
        Worker(mine, handler, LIMITS, TERMS, EVENTS, canaries=canaries),
    ):
        redrive = Redrive(line.client, letters, canaries)
        told = [
            each
            async for each in redrive.run(letters.matching(LetterFilter(fingerprint="like-github")), FAST)
        ]
        await until(lambda: len(handler.seen) == 15)
        await until(lambda: _is_at_rest(mine))
    assert {each.phase for each in told} == {Phase.FIRST_CANARY, Phase.SECOND_CANARY, Phase.REST}
    assert (told[-1].result, told[-1].redriven, told[-1].succeeded) == (Result.COMPLETE, 15, 11)
    assert sorted(handler.names) == sorted(f"event-{number}" for number in range(2, 17))
    assert {entry.text(b"redrives") for entry in handler.seen} == {"1"}
    page = await letters.page(10, "")
    assert [letter.entry.text(b"id") for letter in page.letters] == ["event-1"]


async def test_a_tool_that_keeps_failing_is_held_and_goes_on_when_it_is_well(
    queue: Queue, line: Line
) -> None:
    state = {"ill": True}
    breakers = Breakers(line.client, "events", BREAKER)
    handler = Handler(lambda entry: Retry("it is ill") if state["ill"] and entry.tool == "github" else DONE)
    holds = Holds(breakers, period_s=0.02)
    async with line.queue() as mine, Worker(mine, handler, LIMITS, TERMS, EVENTS, holds=holds):
        await line.publish(*range(20))
        await until(lambda: _is_open(breakers, "github"))
        await line.publish(*range(20, 25), tool="jira")
        await until(lambda: {f"event-{number}" for number in range(20, 25)} <= set(handler.names))
        assert (await queue.counts()).waiting + (await queue.counts()).delayed > 0
        state["ill"] = False
        await until(lambda: _is_at_rest(mine))
    assert set(handler.names) == {f"event-{number}" for number in range(25)}
    assert (await queue.counts()).dead == 0


async def _is_open(breakers: Breakers, tool: str) -> bool:
    return any(each.tool == tool and each.state is State.OPEN for each in await breakers.all())


async def test_breakers_and_pauses_are_one_state_for_all_processes(queue: Queue, line: Line) -> None:
    async with Line(line.place) as other:
        lasting = replace(BREAKER, open_s=60.0, longest_open_s=60.0)
        ours, theirs = (Breakers(each.client, "events", lasting) for each in (line, other))
        tools = [
            Tools(each.client, [queue.lane], [breakers], DeadLetters(each.client, [queue.lane]))
            for each, breakers in ((line, ours), (other, theirs))
        ]
        await ours.observe({"github": Tally(bad=4)})
        assert await tools[0].pause("jira", "they deploy")
        paused, held = await theirs.observe({})
        assert (paused, held["github"].state) == (frozenset({"jira"}), State.OPEN)
        assert await theirs.probe({"github": 3, "slack": 3}) == {"github": 0, "slack": 3}
        [was] = await tools[1].reset("github")
        assert (was.state, was.trips) == (State.OPEN, 1)
        assert await tools[1].resume("jira")
        assert await ours.observe({}) == (frozenset(), {})
