"""What administrators do is put on record: who, what about, how it ended; never a payload, never a secret.

Nobody waits for it: records are appended to the audit chain in the background. While the store is away they
wait, within bounds, and what had to go is told.
"""

from __future__ import annotations

import asyncio
import functools
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from prometheus_client import Counter

from webhook_shared.audit.chain import AuditChain, Contended, Seal
from webhook_shared.audit.settings import AuditedSection
from webhook_shared.errors import ServiceError
from webhook_shared.journal import Journal
from webhook_shared.redis import Client, RedisError
from webhook_shared.rpc.identity import caller
from webhook_shared.sealing.master_keys import MasterKeys
from webhook_shared.tasks import ended

GATHERED_S = 1.0
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 8 * 2**20

RECORDS = Counter("webhook_audit_records_total", "Records that were appended to the audit chain.")
LOST = Counter(
    "webhook_audit_lost_total",
    "Records that never came into the audit chain: Redis was away for too long. The chain says how many.",
)

_LONGEST_SUBJECT = 256
_SUBJECT = frozenset(
    (
        *("all", "cause", "dead_letter_id", "dead_letter_ids", "display_name", "dry_run", "erasure_id"),
        *("event_id",),
        *("everything", "fingerprint", "key_id", "max_contexts", "max_events", "max_events_per_second"),
        *("max_per_second", "name", "rejection_id", "rejection_ids", "replay_id", "skip_canary", "stage"),
        *("tenant", "tenants", "through_sequence", "tier", "tool", "whole_tenant"),
    )
)
"""The fields of a request that may stand in a record: names and numbers, never values of secrets."""
_FINGERPRINTED = frozenset(("context_id", "subject"))
"""Those that tell of somebody's data, who may want it forgotten: whoever knows the value can find it."""
_FILTERS = frozenset(("filter", "target"))
"""Messages whose fields count as the request's own."""
_READING = ("Count", "Find", "Get", "List", "Search", "Tail", "Verify", "Watch")


class Recorder:
    """Puts records into the chain.

    Args:
        chain: Where to.
        seal: Makes fingerprints; None: what is fingerprinted is left out.
        every_s: How long to gather before writing, seconds.
    """

    def __init__(self, chain: AuditChain, seal: Seal | None = None, *, every_s: float = GATHERED_S) -> None:
        self._chain = chain
        self._seal = seal
        self._writer = f"{socket.gethostname()}/{os.getpid()}"
        self._number = 0
        self._lost = 0
        self.journal: Journal[Any] = Journal(
            "audit",
            self._write,
            most=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            every_s=every_s,
            lost=self._lose,
            gather=self._gather,
        )

    def called(
        self, method: str, key_id: str, outcome: str, subject: Mapping[str, str], tenant: str = ""
    ) -> None:
        """Somebody administered something.

        Args:
            method: "package.Service/Method".
            key_id: Of the credential.
            outcome: "OK", or the reason of the error.
            subject: What it was about.
            tenant: Whose operators may see it; empty for those of all tenants only.
        """
        record = self._record(tenant)
        call = record.admin_call
        call.method, call.key_id, call.outcome = method, key_id, outcome
        for name, value in subject.items():
            call.subject[name] = value[:_LONGEST_SUBJECT]
        self._put(record)

    def fingerprint(self, value: str) -> str:
        """Tells two values apart, and nothing else of them; empty without a seal."""
        return self._seal.fingerprint(value.encode()) if self._seal else ""

    def _record(self, tenant: str = "") -> Any:
        self._number += 1
        record = self._chain.contract.AuditRecord(writer=self._writer, tenant=tenant, number=self._number)
        record.time.FromNanoseconds(time.time_ns())
        return record

    def _put(self, record: Any) -> None:
        self.journal.put(record, record.ByteSize())

    def _gather(self) -> None:
        """Put down what was only counted so far: nothing here."""

    def _lose(self, count: int) -> None:
        self._lost += count
        LOST.inc(count)

    async def _write(self, records: Sequence[Any]) -> None:
        lost = self._lost
        told = list(records)
        if lost:
            record = self._record()
            record.loss.count = lost
            told.insert(0, record)
        try:
            await self._chain.append(told)
        except Contended:
            raise RedisError("the audit chain is contended") from None
        self._lost -= lost
        RECORDS.inc(len(told))


@asynccontextmanager
async def recording(
    client: Client, master_keys: MasterKeys, section: AuditedSection, contract: Any
) -> AsyncIterator[tuple[AuditChain, Recorder | None]]:
    """The chain, and a recorder that writes while inside; None where nothing is to be recorded.

    Args:
        client: Has the chain.
        master_keys: Seal its head.
        section: Whether and how much.
        contract: The module of the messages.
    """
    seal = Seal(master_keys)
    chain = AuditChain(client, seal, most=section.audit.max_records, contract=contract)
    if not section.enable_audit_logging:
        yield chain, None
        return
    recorder = Recorder(chain, seal)
    task = asyncio.create_task(recorder.journal.keep())
    try:
        yield chain, recorder
    finally:
        await ended([task])
        await recorder.journal.close()


def put_on_record(servicer: Any, service: Any, recorder: Recorder) -> None:
    """Have every RPC of a service recorded that changes something or shows a payload.

    Args:
        servicer: Its methods are replaced by recorded ones.
        service: The descriptor of the service, which knows them all, those of tomorrow as well.
        recorder: Where to.
    """
    for method in service.methods:
        wrap = _recorded_stream if method.server_streaming else _recorded
        recorded = wrap(getattr(servicer, method.name), f"{service.full_name}/{method.name}", recorder)
        setattr(servicer, method.name, recorded)


class _Call:
    """One call on its way onto the record."""

    def __init__(self, method: str, request: Any, recorder: Recorder) -> None:
        self._method, self._recorder = method, recorder
        self._plain = _is_plain(method, request)
        self._key_id = "" if self._plain else caller().key_id
        self._subject = {} if self._plain else _subject(request, recorder)
        self.outcome = "INTERNAL"

    def made(self, response: Any) -> None:
        """What was made is named by the answer alone."""
        if not self._plain:
            for name in ("api_key", "added", "retired"):
                self._subject.update(_subject(getattr(response, name, None), self._recorder))

    def ended(self) -> None:
        if not self._plain:
            tenant = self._subject.get("tenant", "")
            self._recorder.called(self._method, self._key_id, self.outcome, self._subject, tenant)


def _recorded(
    inner: Callable[[Any, Any], Awaitable[Any]], method: str, recorder: Recorder
) -> Callable[[Any, Any], Awaitable[Any]]:
    @functools.wraps(inner)
    async def call(request: Any, context: Any) -> Any:
        told = _Call(method, request, recorder)
        try:
            response = await inner(request, context)
            told.outcome = "OK"
            told.made(response)
            return response
        except ServiceError as error:
            told.outcome = error.reason
            raise
        finally:
            told.ended()

    return call


def _recorded_stream(
    inner: Callable[[Any, Any], AsyncIterator[Any]], method: str, recorder: Recorder
) -> Callable[[Any, Any], AsyncIterator[Any]]:
    @functools.wraps(inner)
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        told = _Call(method, request, recorder)
        # Whoever hangs up has had done what was done until then.
        told.outcome = "CANCELLED"
        try:
            async for response in inner(request, context):
                yield response
            told.outcome = "OK"
        except ServiceError as error:
            told.outcome = error.reason
            raise
        except Exception:
            told.outcome = "INTERNAL"
            raise
        finally:
            told.ended()

    return call


def _is_plain(method: str, request: Any) -> bool:
    reads = method.rpartition("/")[2].startswith(_READING)
    return reads and not getattr(request, "include_payload", False)


def _subject(message: Any, recorder: Recorder) -> dict[str, str]:
    if message is None:
        return {}
    found = {}
    for field, value in message.ListFields():
        if field.name in _FINGERPRINTED:
            if mark := recorder.fingerprint(str(value)):
                found[field.name] = f"fingerprint {mark}"
        elif field.name in _FILTERS and field.message_type is not None and not field.is_repeated:
            found.update(_subject(value, recorder))
        elif field.name in _SUBJECT:
            found[field.name] = ", ".join(value) if field.is_repeated else _word(field, value)
    return found


def _word(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if field.message_type is not None:
        return str(value.ToJsonString()) if hasattr(value, "ToJsonString") else ""
    return str(value)
