"""What the edge tells security in the background: noted at once, told once a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from webhook_shared.tasks import ended

EVERY_S = 1.0


class Reports(Protocol):
    """Things that were noted."""

    async def report(self) -> None:
        """Tell what was noted; what can't be told now is kept for the next time."""


Kind = TypeVar("Kind", bound=Reports)


@asynccontextmanager
async def reporting(reports: Kind) -> AsyncIterator[Kind]:
    """Report in the background while inside, and what is left on leaving."""
    task = asyncio.create_task(_keep_reporting(reports))
    try:
        yield reports
    finally:
        await ended([task])
        await reports.report()


async def _keep_reporting(reports: Reports) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        await reports.report()
