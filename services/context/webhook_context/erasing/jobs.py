"""Erasures on record: which were begun, how far they are, who is at one. Nothing tells what they erase."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from webhook_shared.redis import REDIS_TROUBLE, Client, Script
from webhook_shared.tasks import ended

from webhook_context import errors
from webhook_context.erasing.tally import Tally

TENANTS = "erasures"
"""SET of every tenant of which something was to be erased."""
LEASE_MS = 30_000
EVENTS_KEPT_S = 90 * 86_400
"""How long the ids of events stay that an erasure which nobody finishes has yet to look for."""
ADDED_AT_ONCE = 1000


class Scope(StrEnum):
    """What an erasure is of."""

    CONTEXT = "context"
    SUBJECT = "subject"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be erased.

    Attributes:
        what: The id of a context, or the name of a subject; empty for the whole tenant.
    """

    tenant: str
    scope: Scope
    what: str = ""

    @property
    def asked(self) -> tuple[str, ...]:
        """As a certificate has it, digested."""
        return (self.tenant, self.what) if self.what else (self.tenant,)


@dataclass(frozen=True, slots=True)
class Job:
    """An erasure on record; times are Unix milliseconds.

    Attributes:
        end_ms: Of the latest run that came to its end; 0 before.
        certificate: Of that run.
    """

    erasure_id: str
    tenant: str
    scope: str
    begin_ms: int
    end_ms: int
    complete: bool
    certificate: str


class Jobs:
    """The records. Every method raises REDIS_TROUBLE where Redis can't be reached.

    Args:
        client: Where they are.
        key: Names them: the same request has the same name, which tells nobody what it asks for.
        lease_ms: How long a job outlives whoever was at it before another may go on.
    """

    def __init__(self, client: Client, key: bytes, *, lease_ms: int = LEASE_MS) -> None:
        self._client = client
        self._key = hmac.digest(key, b"names", "sha256")
        self._lease_ms = lease_ms
        self._lease = Script.load("webhook_context", "erasing_lease")

    def name(self, wanted: Wanted) -> str:
        """The id of the erasure that a request is about."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (wanted.scope, *wanted.asked)]
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hashlib.blake2b(joined, digest_size=16, key=self._key).hexdigest()

    @asynccontextmanager
    async def held(self, erasure_id: str) -> AsyncIterator[asyncio.Event]:
        """Be the only one at a job while inside.

        Yields:
            Is set when that is over before its time: somebody else may be at it.

        Raises:
            ServiceError: ERASURE_UNDER_WAY.
        """
        token, lost = secrets.token_hex(16), asyncio.Event()
        if not await self._lease(self._client, [_lease(erasure_id)], [token, self._lease_ms]):
            raise errors.erasure_under_way(self._lease_ms / 1000)
        renewing = asyncio.create_task(self._renew(erasure_id, token, lost))
        try:
            yield lost
        finally:
            await ended([renewing])
            try:
                await self._lease(self._client, [_lease(erasure_id)], [token, 0])
            except REDIS_TROUBLE:
                # It runs out.
                lost.set()

    async def _renew(self, erasure_id: str, token: str, lost: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._lease_ms / 1000
        while loop.time() < until:
            await asyncio.sleep(self._lease_ms / 3000)
            try:
                if not await self._lease(self._client, [_lease(erasure_id)], [token, self._lease_ms]):
                    break
                until = loop.time() + self._lease_ms / 1000
            except REDIS_TROUBLE:
                continue
        lost.set()

    async def begin(self, wanted: Wanted, now_ms: int) -> tuple[int, Tally]:
        """Put a job on record, or go on with it; when it was first asked for, and what it has erased.

        One that came to its end is done anew, from now on.
        """
        erasure_id = self.name(wanted)
        key = _job(erasure_id)
        held: Any = await self._client.hmget(key, "begin_ms", "complete", "tally")
        if held[0] is not None and held[1] != b"1":
            return int(held[0]), Tally.read(held[2])
        await self._client.zadd(_of_tenant(wanted.tenant), {erasure_id: now_ms})
        await self._client.sadd(TENANTS, wanted.tenant)
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.delete(key)
            pipeline.hset(key, "tenant", wanted.tenant)
            pipeline.hset(key, "scope", wanted.scope.value)
            pipeline.hset(key, "begin_ms", str(now_ms))
            pipeline.hset(key, "complete", "0")
            await pipeline.execute()
        return now_ms, Tally()

    async def progress(self, erasure_id: str, tally: Tally) -> None:
        """So much is erased, whatever happens next."""
        await self._client.hset(_job(erasure_id), "tally", tally.written())

    async def note_events(self, erasure_id: str, event_ids: Collection[str]) -> None:
        """These are part of it: other places are to be searched for them, also by whoever goes on."""
        ids = list(event_ids)
        for start in range(0, len(ids), ADDED_AT_ONCE):
            await self._client.sadd(_events(erasure_id), *ids[start : start + ADDED_AT_ONCE])
        if ids:
            await self._client.expire(_events(erasure_id), EVENTS_KEPT_S)

    async def events(self, erasure_id: str) -> list[str]:
        """What `note_events` was told, in order."""
        found: Any = await self._client.smembers(_events(erasure_id))
        return sorted(one.decode() for one in found)

    async def end(self, erasure_id: str, end_ms: int, certificate: str, *, complete: bool) -> None:
        """A run came to its end; where it was complete, nothing need be remembered for another."""
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(_job(erasure_id), "end_ms", str(end_ms))
            pipeline.hset(_job(erasure_id), "complete", str(int(complete)))
            pipeline.hset(_job(erasure_id), "certificate", certificate)
            await pipeline.execute()
        if complete:
            await self._client.unlink(_events(erasure_id))

    async def tenants(self) -> list[str]:
        """Those of which something was ever to be erased."""
        found: Any = await self._client.smembers(TENANTS)
        return sorted(one.decode() for one in found)

    async def listed(self, tenants: Collection[str]) -> list[Job]:
        """Those of these tenants, the latest first."""
        jobs: list[Job] = []
        for tenant in tenants:
            ids: Any = await self._client.zrange(_of_tenant(tenant), 0, -1)
            for one in ids:
                held: Any = await self._client.hgetall(_job(one.decode()))
                if held:
                    jobs.append(_read(one.decode(), held))
        return sorted(jobs, key=lambda job: (-job.begin_ms, job.erasure_id))


def _read(erasure_id: str, held: dict[bytes, bytes]) -> Job:
    return Job(
        erasure_id=erasure_id,
        tenant=held.get(b"tenant", b"").decode(),
        scope=held.get(b"scope", b"").decode(),
        begin_ms=int(held.get(b"begin_ms", 0)),
        end_ms=int(held.get(b"end_ms", 0)),
        complete=held.get(b"complete") == b"1",
        certificate=held.get(b"certificate", b"").decode(),
    )


def _job(erasure_id: str) -> str:
    return f"erasure:{{{erasure_id}}}"


def _events(erasure_id: str) -> str:
    return f"{_job(erasure_id)}:events"


def _lease(erasure_id: str) -> str:
    return f"{_job(erasure_id)}:lease"


def _of_tenant(tenant: str) -> str:
    return f"erasures:{{{tenant}}}"
