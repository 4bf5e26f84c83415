"""Kills the mover of contexts at every step of every transition and of segments, with writers at work."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

SHARES = {
    "services/context/tests/test_crashes.py": 0.75,
    "services/context/tests/test_segment_crashes.py": 0.25,
}
"""The tests of it, and how many of the crashes are theirs."""


async def measure(count: int) -> dict[str, Any]:
    """Run the tests of it for long; each ends at the first acknowledged version that is lost or stale."""
    lost = [await _lost(test, round(count * share)) for test, share in SHARES.items()]
    return {"crashes": count, "crash_lost": sum(lost)}


async def _lost(test: str, count: int) -> int:
    environ = os.environ | {"WEBHOOK_TEST_CRASHES": str(count)}
    command = [sys.executable, "-m", "pytest", test, "-p", "no:cacheprovider", "--timeout", "14400"]
    running = await asyncio.create_subprocess_exec(*command, env=environ)
    return 1 if await running.wait() else 0
