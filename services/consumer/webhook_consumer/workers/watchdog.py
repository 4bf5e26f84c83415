"""Watches the event loop from outside of it: a process whose loop stands still can't say so itself."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from webhook_shared import telemetry
from webhook_shared.tasks import ended

# As sysexits(3) has it: an internal error.
EXIT_STUCK = 70
LOOKS = 20


def give_up() -> None:
    """Say where each thread stands, and end this process as it is: what it held is taken over by others."""
    sys.stderr.write("the event loop stands still; this process ends. Where it stood:\n")
    faulthandler.dump_traceback(file=sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_STUCK)


class Watchdog:
    """A thread that looks whether the loop still turns.

    It counts its own looks instead of the time: a process that was stopped as a whole and goes on is well.

    Args:
        timeout_s: How long the loop may stand still, seconds.
        stuck: What to do then.
    """

    def __init__(self, timeout_s: float, stuck: Callable[[], None] = give_up) -> None:
        self._period_s = timeout_s / LOOKS
        self._stuck = stuck
        self._turned = threading.Event()
        self._ended = threading.Event()

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """While inside, the loop that runs this is watched."""
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        turning = asyncio.create_task(self._turn())
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            await ended([turning])

    async def _turn(self) -> None:
        while True:
            self._turned.set()
            await asyncio.sleep(self._period_s / 2)

    def _watch(self) -> None:
        missed = 0
        while not self._ended.wait(self._period_s):
            missed = 0 if self._turned.is_set() else missed + 1
            self._turned.clear()
            if missed:
                telemetry.show_loop_lag(missed * self._period_s)
            if missed >= LOOKS:
                self._stuck()
                missed = 0
