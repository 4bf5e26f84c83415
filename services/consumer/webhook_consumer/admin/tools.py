"""What is known of each tool: where its events are, whether it is paused, how its breakers are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from webhook_shared.redis import Client, Script

from webhook_consumer.dead_letters.letters import ALL_LETTERS, DeadLetters
from webhook_consumer.failures.breaker import ALL_TOOLS, PAUSES, Breaker, Breakers, State
from webhook_consumer.queue.redis import Lane

# Looked at in one call, in the stream and among the delayed each. The server does nothing else meanwhile.
MOST_SAMPLED = 1000
MOST_DEAD_SAMPLED = 10_000


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when (Unix ms) a tool is paused, and why."""

    tool: str
    since_ms: int
    note: str


@dataclass(frozen=True, slots=True)
class ToolBacklog:
    """Where a tool's events are in a stage.

    Attributes:
        stage: "events" or "enrichment".
        tool: Its name.
        waiting: In the stream.
        in_flight: Handed to a worker.
        delayed: Waiting for their next try; with `parked`.
        parked: Put aside; exact.
        dead: Given up.
        oldest_ms: Age of the oldest of what was looked at; None where there is nothing.
        estimated: Whether the counts but `parked` are extrapolated, and `dead` is of the newest only.
    """

    stage: str
    tool: str
    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0
    parked: int = 0
    dead: int = 0
    oldest_ms: int | None = None
    estimated: bool = False

    def plus(self, other: ToolBacklog) -> ToolBacklog:
        """Both together, of the same tool and stage."""
        ages = [age for age in (self.oldest_ms, other.oldest_ms) if age is not None]
        return ToolBacklog(
            stage=self.stage,
            tool=self.tool,
            waiting=self.waiting + other.waiting,
            in_flight=self.in_flight + other.in_flight,
            delayed=self.delayed + other.delayed,
            parked=self.parked + other.parked,
            dead=self.dead + other.dead,
            oldest_ms=max(ages, default=None),
            estimated=self.estimated or other.estimated,
        )


class Tools:
    """The tools, over all stages.

    Args:
        client: Where it is all kept.
        lanes: The stages.
        breakers: Their breakers.
        dead_letters: What was given up.
    """

    def __init__(
        self, client: Client, lanes: Sequence[Lane], breakers: Sequence[Breakers], dead_letters: DeadLetters
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._breakers = breakers
        self._dead_letters = dead_letters
        self._script = Script.load("webhook_consumer", "entry", "tools")

    async def pause(self, tool: str, note: str) -> Pause:
        """Have its events put aside until `resume`, whoever restarts; an older pause stays as it is."""
        pause = Pause(tool, time.time_ns() // 1_000_000, note)
        told = orjson.dumps({"since": pause.since_ms, "note": note})
        if await self._client.hsetnx(PAUSES, tool, told):
            return pause
        return (await self.pauses()).get(tool, pause)

    async def resume(self, tool: str) -> bool:
        """End its pause. False where there was none."""
        return bool(await self._client.hdel(PAUSES, tool))

    async def pauses(self) -> dict[str, Pause]:
        """All that are paused, by tool; ALL_TOOLS stands for a drain."""
        rows: Any = await self._client.hgetall(PAUSES)
        return {name.decode(errors="replace"): _pause(name, told) for name, told in sorted(rows.items())}

    async def drain(self) -> None:
        """From here on nothing new is read."""
        await self.pause(ALL_TOOLS, "")

    async def flow(self) -> bool:
        """End the drain. False where there was none."""
        return await self.resume(ALL_TOOLS)

    async def is_draining(self) -> bool:
        """Whether nothing new is read."""
        return bool(await self._client.hexists(PAUSES, ALL_TOOLS))

    async def breakers(self) -> list[Breaker]:
        """Of all stages, by stage and tool."""
        return [breaker for breakers in self._breakers for breaker in await breakers.all()]

    async def reset(self, tool: str) -> list[Breaker]:
        """Close a tool's breakers. Returns what they were; none where nothing was known."""
        found = [await breakers.reset(tool) for breakers in self._breakers]
        return [breaker for breaker in found if breaker is not None]

    async def backlog(self) -> list[ToolBacklog]:
        """By stage and tool: all that have an event somewhere, are paused, or have a breaker."""
        found: dict[tuple[str, str], ToolBacklog] = {}
        for lane in self._lanes:
            for one in await self._lane(lane):
                where = (one.stage, one.tool)
                found[where] = found[where].plus(one) if where in found else one
        for one in await self._dead():
            where = (one.stage, one.tool)
            found[where] = found[where].plus(one) if where in found else one
        stage = self._lanes[0].stage
        for name in (await self.pauses()).keys() - {ALL_TOOLS}:
            found.setdefault((stage, name), ToolBacklog(stage, name))
        for breaker in await self.breakers():
            if breaker.state is not State.CLOSED:
                where = (breaker.stage, breaker.tool)
                found.setdefault(where, ToolBacklog(*where))
        return [found[where] for where in sorted(found)]

    async def _lane(self, lane: Lane) -> list[ToolBacklog]:
        reply = await self._script(
            self._client,
            [lane.stream, lane.delayed, lane.bodies, lane.arrivals, lane.parked],
            [lane.group, MOST_SAMPLED],
        )
        waiting, in_flight, delayed = (_Sample(*reply[at : at + 2]) for at in (0, 2, 4))
        rows = (reply[at : at + 6] for at in range(6, len(reply), 6))
        return [
            ToolBacklog(
                stage=lane.stage,
                tool=bytes(tool).decode(errors="replace"),
                waiting=waiting.scaled(waits),
                in_flight=in_flight.scaled(flies),
                delayed=delayed.scaled(late) + aside,
                parked=aside,
                oldest_ms=oldest_ms,
                estimated=any(sample.is_partial for sample in (waiting, in_flight, delayed)),
            )
            for tool, waits, flies, late, aside, oldest_ms in rows
        ]

    async def _dead(self) -> list[ToolBacklog]:
        counts, truncated = await self._dead_letters.counts(ALL_LETTERS, MOST_DEAD_SAMPLED)
        return [ToolBacklog(kind.stage, kind.tool, dead=kind.count, estimated=truncated) for kind in counts]


@dataclass(frozen=True, slots=True)
class _Sample:
    """Of so many entries so many were looked at."""

    total: int
    seen: int

    @property
    def is_partial(self) -> bool:
        return self.seen < self.total

    def scaled(self, count: int) -> int:
        return round(count * self.total / self.seen) if self.is_partial and self.seen else count


def _pause(name: bytes, told: bytes) -> Pause:
    try:
        known = orjson.loads(told)
        return Pause(name.decode(errors="replace"), int(known["since"]), str(known["note"]))
    except (ValueError, KeyError, TypeError):
        # It holds the tool, whatever somebody wrote there by hand.
        return Pause(name.decode(errors="replace"), 0, "")
