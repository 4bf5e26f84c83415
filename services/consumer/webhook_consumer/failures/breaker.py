"""A breaker per tool and stage, shared by all processes: what keeps failing is left alone for a while.

```
            too many of the latest failed              its time is up
  closed ────────────────────────────────▶ open ──────────────────────▶ half open
    ▲                                        ▲        a few are let through │
    │                                        └──────── one of them failed ──┤
    └────────────────────────────────────────────────── all went well ─────┘
```

Only failures count that are the other side's or the handler's (`Failure.TRANSIENT`, `AWAY`). An entry that
can't be read, or is refused for what it says, tells nothing about the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson
from webhook_shared.redis import Client, Script

PAUSES = "paused:{tools}"
"""HASH: tool to when and why it was paused. All that concerns tools is in one slot."""
ALL_TOOLS = "*"
"""Stands in PAUSES while the queue as a whole is being drained; no tool is called so."""


class State(IntEnum):
    """As the metric `webhook_circuit_breaker_state` shows it."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and for how long.

    Attributes:
        failures: It opens when at least so many of the latest failed...
        share: ...and these are at least this share of them, 0 to 1.
        window_s: The latest are those of this time and of as much before, seconds.
        open_s: How long it is open, seconds; doubles each time that a probe fails...
        longest_open_s: ...up to this.
        probes: How many are let through at once when that is over, and must go well.
        probe_lease_s: When a probe of which nobody has heard is given to another entry, seconds.
    """

    failures: int = 10
    share: float = 0.5
    window_s: float = 30.0
    open_s: float = 10.0
    longest_open_s: float = 300.0
    probes: int = 3
    probe_lease_s: float = 60.0


@dataclass(slots=True)
class Tally:
    """How entries of one tool went: well, failed, or in a way that tells nothing of the next one."""

    ok: int = 0
    bad: int = 0
    neither: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """A tool whose breaker is not closed; `due`: it may let an entry through."""

    state: State
    due: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker, for operators. Times are Unix ms; None while it is closed.

    Attributes:
        stage: Of which stage.
        tool: Of which tool.
        state: Whether it lets entries through.
        since_ms: When it got into this state.
        until_ms: When an open one lets the first entry through.
        trips: How often it opened since it was closed.
        ok: How many entries went well lately, while it is closed.
        bad: How many failed.
    """

    stage: str
    tool: str
    state: State
    since_ms: int | None
    until_ms: int | None
    trips: int
    ok: int
    bad: int


class Breakers:
    """The breakers of one stage.

    Args:
        client: Where they are kept.
        stage: "events" or "enrichment".
        policy: When they open.
        clock_ms: The time; that of the server, which all processes share, where there is none.
    """

    def __init__(
        self, client: Client, stage: str, policy: BreakerPolicy, *, clock_ms: Callable[[], int] | None = None
    ) -> None:
        self.stage = stage
        self.policy = policy
        self._clock_ms = clock_ms
        self._client = client
        self._key = f"breakers:{{tools}}:{stage}"
        self._observe, self._probe = _after_breaker("observe"), _after_breaker("probe")

    async def observe(self, tallies: Mapping[str, Tally]) -> tuple[frozenset[str], dict[str, Held]]:
        """Tell how entries went. Returns the paused tools, and those whose breaker is not closed."""
        told = [value for tool, t in tallies.items() for value in (tool, t.ok, t.bad, t.neither)]
        paused, *rows = await self._observe(self._client, [self._key, PAUSES], [*self._arguments(), *told])
        held = {
            _text(rows[at]): Held(State(rows[at + 1]), bool(rows[at + 2])) for at in range(0, len(rows), 3)
        }
        return frozenset(_text(tool) for tool in paused), held

    async def probe(self, asked: Mapping[str, int]) -> dict[str, int]:
        """How many entries may be started, by tool, where so many would."""
        arguments = [value for pair in asked.items() for value in pair]
        granted = await self._probe(self._client, [self._key], [*self._arguments(), *arguments])
        return dict(zip(asked, map(int, granted), strict=True))

    async def all(self) -> list[Breaker]:
        """Those of the tools that have had failures lately, by tool."""
        rows: Any = await self._client.hgetall(self._key)
        return [self._breaker(tool, told) for tool, told in sorted(rows.items())]

    async def reset(self, tool: str) -> Breaker | None:
        """Close it and forget the failures. Returns what it was; None where nothing was known."""
        told: Any = await self._client.hget(self._key, tool)
        if told is None:
            return None
        await self._client.hdel(self._key, tool)
        return self._breaker(tool.encode(), told)

    def _breaker(self, tool: bytes, told: bytes) -> Breaker:
        known = _document(told)
        return Breaker(
            stage=self.stage,
            tool=_text(tool),
            state=State(known.get("state", State.CLOSED)),
            since_ms=known.get("since"),
            until_ms=known.get("till"),
            trips=int(known.get("trips", 0)),
            ok=int(known.get("ok", 0) + known.get("ok_before", 0)),
            bad=int(known.get("bad", 0) + known.get("bad_before", 0)),
        )

    def _arguments(self) -> Sequence[Any]:
        policy = self.policy
        seconds = (policy.window_s, policy.open_s, policy.longest_open_s)
        milliseconds = [round(value * 1000) for value in seconds]
        lease_ms = round(policy.probe_lease_s * 1000)
        now_ms = self._clock_ms() if self._clock_ms else ""
        return [policy.failures, policy.share, *milliseconds, policy.probes, lease_ms, now_ms]


def _document(told: bytes) -> dict[str, Any]:
    try:
        known = orjson.loads(told)
    except orjson.JSONDecodeError:
        return {}
    return known if isinstance(known, dict) else {}


def _text(name: bytes) -> str:
    return name.decode(errors="replace")


def _after_breaker(name: str) -> Script:
    return Script.load("webhook_consumer", "breaker", name)
