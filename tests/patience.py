"""Waiting for what must come true, with a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

POLL_S = 0.1


async def eventually(attempt: Callable[[], Awaitable[T]], *, within_s: float = 20.0) -> T:
    """Repeat an attempt until it raises no AssertionError.

    Args:
        attempt: Asserts what must come true and returns what it found.
        within_s: After that the last AssertionError is raised; seconds.
    """
    ends = time.monotonic() + within_s
    while True:
        try:
            return await attempt()
        except AssertionError:
            if time.monotonic() > ends:
                raise
        await asyncio.sleep(POLL_S)
