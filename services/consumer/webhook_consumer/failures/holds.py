"""Which tools' entries are put aside: what one process knows of the shared breakers and pauses.

The process tells the breakers how its entries went and hears which tools are held, in one round trip twice a
second. While no tool is held an entry costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from webhook_shared.telemetry import log

from webhook_consumer.entry import Dead, Done, Entry, Failure, Outcome
from webhook_consumer.failures.breaker import ALL_TOOLS, Breakers, Held, State, Tally
from webhook_consumer.metrics import breaker_state, tool_paused
from webhook_consumer.queue.redis import QUEUE_TROUBLE

PERIOD_S = 0.5
# Names in entries that are not ours must not fill the memory.
MOST_TALLIES = 1000
# What counts against a breaker.
_COUNTED = frozenset({Failure.TRANSIENT, Failure.AWAY})


class Holds:
    """What one stage in one process knows of held tools.

    Args:
        breakers: The stage's; None: nothing is ever held.
        period_s: How often they are told and heard, seconds.

    Attributes:
        is_draining: Nothing new is to be read.
    """

    def __init__(self, breakers: Breakers | None = None, period_s: float = PERIOD_S) -> None:
        self._breakers = breakers
        self._period_s = period_s
        self._tallies: dict[str, Tally] = {}
        self._paused: frozenset[str] = frozenset()
        self._held: dict[str, Held] = {}
        self._shown: set[str] = set()
        self.is_draining = False

    @property
    def some(self) -> bool:
        """Whether any tool is held."""
        return bool(self._held or self._paused)

    def went_well(self, tool: str, count: int) -> None:
        """So many of the tool's entries had their effect."""
        if (tally := self._tally(tool)) is not None:
            tally.ok += count

    def failed(self, tool: str, outcome: Outcome) -> None:
        """An entry came to another end than that."""
        if (tally := self._tally(tool)) is None or isinstance(outcome, Done):
            return
        if not isinstance(outcome, Dead) and outcome.failure in _COUNTED:
            tally.bad += 1
        else:
            tally.neither += 1

    def _tally(self, tool: str) -> Tally | None:
        tally = self._tallies.get(tool)
        if tally is None and self._breakers and len(self._tallies) < MOST_TALLIES:
            tally = self._tallies[tool] = Tally()
        return tally

    async def admit(self, batch: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
        """Part a batch into what may be started and what is to be put aside.

        Of a tool whose breaker is not closed as many may start as the breaker lets through.
        """
        by_tool = Counter(entry.tool for entry in batch)
        asked = {tool: count for tool, count in by_tool.items() if tool in self._held}
        left = await self._granted(asked) if asked else {}
        go: list[Entry] = []
        aside: list[Entry] = []
        for entry in batch:
            tool = entry.tool
            if tool in self._paused or left.get(tool, 1) <= 0:
                aside.append(entry)
                continue
            if tool in left:
                left[tool] -= 1
            go.append(entry)
        return go, aside

    async def _granted(self, asked: Mapping[str, int]) -> dict[str, int]:
        if self._breakers is None:
            return dict(asked)
        due = {tool: count for tool, count in asked.items() if self._held[tool].due}
        granted = dict.fromkeys(asked, 0)
        if due:
            try:
                granted |= await self._breakers.probe(due)
            except QUEUE_TROUBLE as error:
                log.warning("breaker.unreachable", stage=self._breakers.stage, error=type(error).__name__)
        return granted

    def allowances(self) -> dict[str, int]:
        """How many entries that were put aside may come back at once, by tool; others freely."""
        probes = self._breakers.policy.probes if self._breakers else 0
        by_breaker = {tool: probes if held.due else 0 for tool, held in self._held.items()}
        return by_breaker | dict.fromkeys(self._paused, 0)

    async def watch(self) -> None:
        """Tell and hear, for as long as it runs."""
        if self._breakers is None:
            return
        while True:
            try:
                await self.exchange()
            except QUEUE_TROUBLE as error:
                # What was held stays so; the reader says loudly that the queue is away.
                log.debug("breaker.unreachable", stage=self._breakers.stage, error=type(error).__name__)
            except Exception:  # noqa: BLE001  # a stage that hears nothing any more never resumes a tool
                log.error("holds.failed", stage=self._breakers.stage, exc_info=True)
            await asyncio.sleep(self._period_s)

    async def exchange(self) -> None:
        """Tell how entries went since the last time, and hear which tools are held.

        Raises:
            One of QUEUE_TROUBLE: What was to be told is told the next time.
        """
        if self._breakers is None:
            return
        tallies, self._tallies = self._tallies, {}
        try:
            paused, held = await self._breakers.observe(tallies)
        except BaseException:
            self._keep(tallies)
            raise
        self.is_draining = ALL_TOOLS in paused
        paused -= {ALL_TOOLS}
        self._announce(held)
        self._paused, self._held = paused, held
        self._show(self._breakers.stage, tallies)

    def _keep(self, tallies: Mapping[str, Tally]) -> None:
        for tool, tally in tallies.items():
            kept = self._tallies.setdefault(tool, Tally())
            kept.ok, kept.bad = kept.ok + tally.ok, kept.bad + tally.bad
            kept.neither += tally.neither

    def _announce(self, held: Mapping[str, Held]) -> None:
        assert self._breakers is not None
        states: dict[str, State] = defaultdict(lambda: State.CLOSED)
        before, after = states.copy(), states.copy()
        before.update({tool: was.state for tool, was in self._held.items()})
        after.update({tool: now.state for tool, now in held.items()})
        for tool in before.keys() | after.keys():
            if before[tool] is not after[tool]:
                state = after[tool].name.lower()
                log.warning("breaker.changed", stage=self._breakers.stage, tool=tool, state=state)

    def _show(self, stage: str, tallies: Mapping[str, Tally]) -> None:
        # Closed ones are shown as well: of a tool that is not there an alert could not say that all is well.
        if len(self._shown) < MOST_TALLIES:
            self._shown |= tallies.keys() | self._held.keys()
        for tool in self._shown:
            state = self._held[tool].state if tool in self._held else State.CLOSED
            breaker_state.labels(tool, stage).set(state)
        for tool in self._paused | self._shown:
            tool_paused.labels(tool).set(tool in self._paused)
        self._shown |= self._paused
