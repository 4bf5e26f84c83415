"""The clock jumps for whoever has it, while he runs, and for nobody else."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from tests.ledger.clock import Clock, compiled

TELLS = """
import sys, time
for _ in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""
HOUR_S = 3600


async def test_a_clock_jumps_and_time_that_passes_does_not(tmp_path: Path) -> None:
    library = await compiled(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler")
    clock = Clock(library, tmp_path / "clock")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", TELLS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **clock.environ},
    )
    asks, tells = process.stdin, process.stdout
    assert asks
    assert tells

    async def asked() -> list[float]:
        asks.write(b"\n")
        return [float(told) for told in (await tells.readline()).split()]

    async def is_ahead_s() -> int:
        return round(((await asked())[0] - time.time()) / 60) * 60

    assert await is_ahead_s() == 0
    _, before = await asked()
    async with clock.wrong(HOUR_S):
        assert await is_ahead_s() == HOUR_S
        clock.set(-HOUR_S)
        assert await is_ahead_s() == -HOUR_S
    assert await is_ahead_s() == 0
    assert (await asked())[1] - before < 60
    asks.close()
    await process.wait()
