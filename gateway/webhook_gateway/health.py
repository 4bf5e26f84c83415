"""Whether the gateway can do its work now: its own state and that of what it needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import orjson

from webhook_gateway import answers
from webhook_gateway.answers import Answer

PROBE_TIMEOUT_S = 1.0
# So that a flood of health checks is not a flood of probes.
FRESH_S = 1.0


class Health:
    """Answers `GET /health/webhook`: 200 if everything is there, else 503; the body says what is missing.

    Args:
        probes: What the gateway needs, by name; a probe raises while its thing is away.
    """

    def __init__(self, probes: Mapping[str, Callable[[], Awaitable[None]]]) -> None:
        self._probes = probes
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
        states = await asyncio.gather(*(_state(probe) for probe in self._probes.values()))
        parts = dict(zip(self._probes, states, strict=True))
        well = all(state == "ok" for state in states)
        body = orjson.dumps({"status": "ok" if well else "unavailable", "gateway": "ok", **parts})
        return answers.plain(200 if well else 503, body)


async def _state(probe: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe()
    except Exception:  # noqa: BLE001  # whatever it is, the thing does not answer
        return "unreachable"
    return "ok"
