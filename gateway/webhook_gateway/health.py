"""Whether the gateway can do its work now: its own state and that of what it needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from webhook_gateway import answers
from webhook_gateway.answers import Answer
from webhook_gateway.publishing.spool import Spool

Probe = Callable[[], Awaitable[None]]

PROBE_TIMEOUT_S = 1.0
# So that a flood of health checks is not a flood of probes.
FRESH_S = 1.0
REDIS = "redis"
SQS = "sqs"
# What the spool can stand in for.
QUEUES = frozenset((REDIS, SQS))


class Health:
    """Answers `GET /health/webhook`: 200 if deliveries are taken, else 503; the body says what is missing.

    Without Redis the gateway works as long as its spool takes events: it is then "degraded", and whoever
    spreads the load must go on sending to it.

    Args:
        probes: What the gateway needs, by name; a probe raises while its thing is away.
        spool: Stands in for Redis, if there is one.
    """

    def __init__(self, probes: Mapping[str, Probe], spool: Spool | None = None) -> None:
        self._probes = probes
        self._spool = spool
        self._last = answers.UNAVAILABLE
        self._probed_at_s = float("-inf")
        self._probing = asyncio.Lock()

    async def answer(self) -> Answer:
        """The answer, not older than `FRESH_S`."""
        async with self._probing:
            if time.monotonic() - self._probed_at_s > FRESH_S:
                self._last = await self._probe()
                self._probed_at_s = time.monotonic()
        return self._last

    async def _probe(self) -> Answer:
        states = await asyncio.gather(*(_answers(probe) for probe in self._probes.values()))
        there = dict(zip(self._probes, states, strict=True))
        parts: dict[str, Any] = {
            name: "ok" if is_there else "unreachable" for name, is_there in there.items()
        }
        status = self._status({name for name, is_there in there.items() if not is_there})
        if self._spool is not None:
            parts["spool"] = _shown(self._spool)
        body = orjson.dumps({"status": status, "gateway": "ok", **parts})
        return answers.plain(503 if status == "unavailable" else 200, body)

    def _status(self, missing: set[str]) -> str:
        if not missing:
            return "ok"
        stands_in = self._spool is not None and self._spool.takes_events
        return "degraded" if missing <= QUEUES and stands_in else "unavailable"


def unless_spooled(probe: Probe, spool: Spool | None) -> Probe:
    """A probe of the queue that does not mind its absence while the spool takes events."""
    if spool is None:
        return probe

    async def check() -> None:
        if not (spool.takes_events or await _answers(probe)):
            raise ConnectionError("neither the queue nor the spool takes events")

    return check


def _shown(spool: Spool) -> dict[str, Any]:
    state = (
        "failing" if spool.is_failing else "full" if spool.is_full else "filled" if spool.events else "empty"
    )
    return {
        "state": state,
        "events": spool.events,
        "bytes": spool.size_bytes,
        "oldest_age_seconds": round(spool.oldest_age_s, 1),
    }


async def _answers(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe()
    except Exception:  # noqa: BLE001  # whatever it is, the thing does not answer
        return False
    return True
