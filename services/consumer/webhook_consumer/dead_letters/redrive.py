"""Putting back into the queue what was given up: one first, then ten, then the rest."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import groupby
from typing import Any

from webhook_shared.redis import Client, Script
from webhook_shared.telemetry import log

from webhook_consumer.dead_letters.letters import DeadLetters, Letter

FIRST_CANARY, SECOND_CANARY = 1, 10
POLL_PERIOD_S = 0.1
# How long it is known how canaries ended.
CANARIES_TTL_S = 3600
MOST_PER_SCRIPT = 1000
# An even flow rather than a gush each second.
PORTIONS_PER_S = 10


class Phase(IntEnum):
    """Which part of a redrive; numbers as in the contract."""

    FIRST_CANARY = 1
    SECOND_CANARY = 2
    REST = 3


class Result(IntEnum):
    """How a redrive ended; numbers as in the contract."""

    COMPLETE = 1
    CANARY_DIED = 2
    CANARY_UNDECIDED = 3
    DRY_RUN = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a redrive is.

    Attributes:
        phase: In which part it is.
        redriven: How many are back in the queue, or would be.
        succeeded: Of the canaries, how many had their effect.
        died: Of the canaries, how many were given up again.
        result: None while it goes on.
        samples: With a dry run, some that would be put back.
    """

    phase: Phase
    redriven: int = 0
    succeeded: int = 0
    died: int = 0
    result: Result | None = None
    samples: tuple[Letter, ...] = ()


@dataclass(frozen=True, slots=True)
class Manner:
    """How to redrive.

    Attributes:
        canary: Whether the first ones go ahead, and the rest follows only if these do well.
        canary_timeout_s: How long they may take, seconds.
        per_second: Most entries put back per second.
        most: Most entries put back; None: all.
    """

    canary: bool = True
    canary_timeout_s: float = 60.0
    per_second: int = 100
    most: int | None = None


class Canaries:
    """How canaries ended: told by whoever worked on one, heard by whoever sent it.

    Args:
        client: Where that is noted.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def tell(self, ends: Mapping[bytes, bool]) -> None:
        """Note how canaries ended, by the field that names them: well or not."""
        for name, well in ends.items():
            run, _, letter = name.partition(b"/")
            key = self._key(run.decode(errors="replace"))
            await self._client.hset(key, letter, b"1" if well else b"0")
            await self._client.expire(key, CANARIES_TTL_S)

    async def heard(self, run: str) -> tuple[int, int]:
        """How many of a run's canaries ended well, and how many did not."""
        ends: Any = await self._client.hvals(self._key(run))
        return ends.count(b"1"), ends.count(b"0")

    def _key(self, run: str) -> str:
        return f"canaries:{run}"


class Redrive:
    """Moves dead letters back. Each move is one atomic step: whoever is killed in between has moved some.

    Args:
        client: Where the queue is.
        dead_letters: What was given up.
        canaries: Says how the first ones ended.
    """

    def __init__(self, client: Client, dead_letters: DeadLetters, canaries: Canaries) -> None:
        self._client = client
        self._dead_letters = dead_letters
        self._canaries = canaries
        self._script = Script.load("webhook_consumer", "redrive", shared=("same_delivery",))

    async def run(self, letters: AsyncIterator[Letter], manner: Manner) -> AsyncIterator[Progress]:
        """Put letters back, and say how that goes; the last word has a result.

        Args:
            letters: Those to be put back. What is gone by its turn is skipped.
            manner: How.
        """
        source = _Portions(letters, manner.most)
        progress = Progress(Phase.FIRST_CANARY)
        if manner.canary:
            for phase, size in ((Phase.FIRST_CANARY, FIRST_CANARY), (Phase.SECOND_CANARY, SECOND_CANARY)):
                run = secrets.token_hex(8)
                moved = await self._put_back(await source.next(size), run)
                progress = replace(progress, phase=phase, redriven=progress.redriven + moved)
                before = progress
                async for progress in self._outcomes(before, run, moved, manner.canary_timeout_s):
                    yield progress
                if progress.result is not None or source.is_empty:
                    break
        size = max(1, min(manner.per_second // PORTIONS_PER_S, MOST_PER_SCRIPT))
        while progress.result is None and not source.is_empty:
            started = time.monotonic()
            moved = await self._put_back(await source.next(size), "")
            progress = replace(progress, phase=Phase.REST, redriven=progress.redriven + moved)
            yield progress
            pause_s = size / manner.per_second - (time.monotonic() - started)
            if not source.is_empty:
                await asyncio.sleep(max(0.0, pause_s))
        log.info("redrive.ended", redriven=progress.redriven, died=progress.died)
        yield replace(progress, result=progress.result or Result.COMPLETE)

    async def _outcomes(
        self, before: Progress, run: str, count: int, timeout_s: float
    ) -> AsyncIterator[Progress]:
        """How this run's canaries do, until all have ended or their time is up."""
        deadline = time.monotonic() + timeout_s
        progress = before
        while True:
            well, badly = await self._canaries.heard(run)
            now = replace(before, succeeded=before.succeeded + well, died=before.died + badly)
            if badly:
                now = replace(now, result=Result.CANARY_DIED)
            elif well < count and time.monotonic() >= deadline:
                now = replace(now, result=Result.CANARY_UNDECIDED)
            if now != progress or progress is before:
                progress = now
                yield progress
            if well + badly >= count or progress.result is not None:
                return
            await asyncio.sleep(POLL_PERIOD_S)

    async def _put_back(self, letters: Sequence[Letter], run: str) -> int:
        moved = 0
        for lane, group in groupby(letters, key=lambda letter: letter.lane):
            ids = [letter.id for letter in group]
            moved += len(await self._script(self._client, [lane.dead_letters, lane.stream], [run, *ids]))
        return moved


class _Portions:
    """An iterator that is taken from by portions, and knows one ahead whether there is more."""

    def __init__(self, letters: AsyncIterator[Letter], most: int | None) -> None:
        self._letters = letters
        self._left = most
        self._ahead: Letter | None = None
        self._begun = False

    @property
    def is_empty(self) -> bool:
        return self._begun and self._ahead is None

    async def next(self, size: int) -> list[Letter]:
        if not self._begun:
            self._begun = True
            await self._look_ahead()
        portion: list[Letter] = []
        while self._ahead is not None and len(portion) < size:
            portion.append(self._ahead)
            await self._look_ahead()
        return portion

    async def _look_ahead(self) -> None:
        self._ahead = None
        if self._left is None:
            self._ahead = await anext(self._letters, None)
        elif self._left > 0:
            self._left -= 1
            self._ahead = await anext(self._letters, None)
