"""Kills the mover of contexts at every step of every transition, with writers at work."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

TEST = "services/context/tests/test_crashes.py"


async def measure(count: int) -> dict[str, Any]:
    """Run the test of it for long; it ends at the first acknowledged version that is lost or stale."""
    environ = os.environ | {"WEBHOOK_TEST_CRASHES": str(count)}
    command = [sys.executable, "-m", "pytest", TEST, "-p", "no:cacheprovider", "--timeout", "7200"]
    running = await asyncio.create_subprocess_exec(*command, env=environ)
    return {"crashes": count, "crash_lost": 1 if await running.wait() else 0}
