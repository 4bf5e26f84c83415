"""The senders' secrets: read by reference, read again while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog
from webhook_shared.settings import read_secret

log = structlog.get_logger()

REREAD_S = 2.0
"""How soon a rotated file is noticed, seconds."""

Values = Mapping[str, str]
"""Secret by reference; a reference that can't be read, or is blank, is not there."""


def read(references: Iterable[str]) -> Values:
    """What the references say now. Blank counts as nothing: an empty secret is one that all know."""
    found: dict[str, str] = {}
    for reference in references:
        try:
            value = read_secret(reference)
        except ValueError:
            continue
        if value.strip():
            found[reference] = value
    return found


async def keep_reading(
    references: Iterable[str], known: Values, changed: Callable[[Values], None], every_s: float = REREAD_S
) -> None:
    """Read again for ever, and tell when something is different.

    Args:
        references: What to read.
        known: What was read last.
        changed: Is given all values whenever one differs.
        every_s: How often, seconds.
    """
    references = tuple(references)
    while True:
        await asyncio.sleep(every_s)
        # A file may lie on a slow mount; the loop must not wait for it.
        values = await asyncio.to_thread(read, references)
        if values == known:
            continue
        different = sorted(name for name in references if values.get(name) != known.get(name))
        log.info("secrets.changed", references=different, unreadable=sorted(set(references) - set(values)))
        known = values
        changed(values)
