"""Follows a registry of sources: what it said last stays good while it says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from webhook_shared.redis import Backoff

from webhook_security import metrics
from webhook_security.registry.definitions import Registered, RegistryUnreadable, SourceRegistry
from webhook_security.registry.snapshot import Snapshot
from webhook_security.registry.sources import Registry
from webhook_security.secrets.secret import Values

log = structlog.get_logger()


class Following:
    """One registry of sources, and who serves what it says.

    Args:
        origin: What is followed.
        registry: Serves it.
        every_s: How often to read, seconds.
        snapshot: Remembers what it says for the next process; None where it never fails to say it.
        changed: Is awaited whenever it says something else.
    """

    def __init__(
        self,
        origin: SourceRegistry,
        registry: Registry,
        *,
        every_s: float,
        snapshot: Snapshot | None = None,
        changed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._origin = origin
        self._registry = registry
        self._snapshot = snapshot
        self._every_s = every_s
        self._changed = changed
        self._said = registry.said(origin.name)
        self._hidden = metrics.registry_entries.labels(origin.name, "hidden")
        self._read = metrics.registry_read.labels(origin.name)

    async def begin(self) -> None:
        """Have what it says, or said last; waits for it where neither is known, however long.

        To serve before would answer 404 to senders that it knows.

        Raises:
            RuntimeError: It won't say anything until somebody changes something.
        """
        backoff = Backoff(base_s=0.1, cap_s=5.0)
        while self._said is None:
            try:
                said = await self._origin.read()
            except RegistryUnreadable as error:
                if error.final:
                    raise RuntimeError(f"{self._origin.name}: {error}") from None
                remembered = await self._snapshot.recall() if self._snapshot else None
                if remembered is None:
                    log.warning("registry.waiting", registry=self._origin.name, why=str(error))
                    await backoff.wait()
                    continue
                log.warning("registry.recalled", registry=self._origin.name, why=str(error))
                self._take(remembered)
            else:
                self._read.set_to_current_time()
                await self._take_and_keep(said)

    async def keep(self) -> None:
        """Read again and again, for ever."""
        readable = True
        while True:
            await asyncio.sleep(self._every_s)
            try:
                said = await self._origin.read()
            except RegistryUnreadable as error:
                if readable:
                    log.warning(
                        "registry.unreadable",
                        registry=self._origin.name,
                        why=str(error),
                        consequence="what it said last stays good",
                    )
                readable = False
                continue
            if not readable:
                log.info("registry.readable", registry=self._origin.name)
            readable = True
            self._read.set_to_current_time()
            if said != self._said:
                await self._take_and_keep(said)
                if self._changed:
                    await self._changed()

    async def _take_and_keep(self, said: Registered) -> None:
        self._take(said)
        if self._snapshot:
            await self._snapshot.keep(said)

    def _take(self, said: Registered) -> None:
        hidden = self._registry.take(self._origin.name, said)
        self._hidden.set(len(hidden))
        log.info(
            "registry.taken",
            registry=self._origin.name,
            sources=len(said.definitions),
            other_secrets=_different(self._said.values, said.values) if self._said else "all",
            hidden=[f"{one.tenant}/{one.tool}" for one in hidden],
        )
        self._said = said


def _different(before: Values, now: Values) -> list[str]:
    """The references of the secrets that came, went or became others."""
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
