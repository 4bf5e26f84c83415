"""What is put on record: who was turned away, who was let in, who administered what, what was changed.

Nobody waits for it. What happens often is counted here and becomes one record a second; everything is
appended to the chain in the background. While the store is away it waits, within bounds, and what had to go
is told.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_QUARANTINED, Verdict
from webhook.security.v1.admission_pb2 import Refusal as RefusalCause
from webhook.security.v1.admission_service_pb2 import Conflict
from webhook.security.v1.audit_pb2 import AuditChangeKind, AuditRecord
from webhook_shared.errors import ServiceError
from webhook_shared.identity import caller
from webhook_shared.redis import RedisError

from webhook_security import metrics
from webhook_security.audit_chain import AuditChain, Contended
from webhook_security.journal import Journal
from webhook_security.refusals import Refusal
from webhook_security.registry import Source

log = structlog.get_logger()

GATHERED_S = 1.0
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 8 * 2**20

_BELIEVED = frozenset({OUTCOME_ADMITTED, OUTCOME_QUARANTINED})
_MOST_TALLIES = 512
_MOST_ADDRESSES = 4
_LONGEST_SUBJECT = 256
_SUBJECT = (
    "tenant",
    "tool",
    "key_id",
    "display_name",
    "tenants",
    "rejection_id",
    "rejection_ids",
    "through_sequence",
)
"""The fields of a request that may stand in a record: names, never values of secrets."""


class _Denials:
    __slots__ = ("addresses", "count")

    def __init__(self) -> None:
        self.count = 0
        self.addresses: set[str] = set()


class Audit:
    """Writes the chain.

    Args:
        chain: Where to.
        every_s: How long to gather before writing, seconds.
    """

    def __init__(self, chain: AuditChain, *, every_s: float) -> None:
        self._chain = chain
        self._writer = f"{socket.gethostname()}/{os.getpid()}"
        self._number = 0
        self._denials: dict[tuple[str, str, Refusal], _Denials] = {}
        self._admitted: dict[str, list[str]] = {}
        self._lost = 0
        self.journal: Journal[AuditRecord] = Journal(
            "audit",
            self._write,
            most=MOST_WAITING,
            most_bytes=MOST_WAITING_BYTES,
            every_s=every_s,
            lost=self._lose,
            gather=self._gather,
        )

    def denied(self, refusal: Refusal, source: Source | None, peer_address: str, count: int = 1) -> None:
        """Deliveries were refused; many become one record."""
        key = (source.tenant, source.tool, refusal) if source else ("", "", refusal)
        denials = self._denials.get(key)
        if denials is None:
            if len(self._denials) >= _MOST_TALLIES:
                # Producers may make names up; the sum is still right.
                key = ("", "", refusal)
            denials = self._denials.setdefault(key, _Denials())
            self.journal.wake()
        denials.count += count
        if len(denials.addresses) < _MOST_ADDRESSES and peer_address:
            denials.addresses.add(peer_address)

    def admitted(self, verdicts: Iterable[Verdict]) -> None:
        """A batch was judged; those that were believed are counted and named by a digest."""
        admitted = self._admitted
        for verdict in verdicts:
            if verdict.outcome in _BELIEVED:
                event = verdict.event
                ids = admitted.get(event.tenant)
                if ids is None:
                    ids = admitted[event.tenant] = []
                    self.journal.wake()
                ids.append(event.id)

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

    def conflicted(self, conflict: Conflict) -> None:
        """Two deliveries of one id and of different bodies were taken."""
        record = self._record(conflict.tenant)
        told = record.conflict
        told.tool, told.event_id = conflict.tool, conflict.event_id
        told.first_event_id = conflict.first_event_id
        self._put(record)

    def changed(self, kind: AuditChangeKind.ValueType, names: Sequence[str], digest: str = "") -> None:
        """Secrets or configuration are not what they were; never their values."""
        record = self._record()
        record.change.kind, record.change.digest = kind, digest
        record.change.names.extend(names)
        self._put(record)

    def _record(self, tenant: str = "") -> AuditRecord:
        self._number += 1
        record = AuditRecord(writer=self._writer, tenant=tenant, number=self._number)
        record.time.FromNanoseconds(time.time_ns())
        return record

    def _put(self, record: AuditRecord) -> None:
        self.journal.put(record, record.ByteSize())

    def _gather(self) -> None:
        denials, self._denials = self._denials, {}
        for (tenant, tool, refusal), tally in denials.items():
            record = self._record(tenant)
            told = record.denials
            told.tool, told.count = tool, tally.count
            told.cause = RefusalCause.ValueType(refusal)
            told.peer_addresses.extend(sorted(tally.addresses))
            self._put(record)
        admitted, self._admitted = self._admitted, {}
        for tenant, ids in admitted.items():
            record = self._record(tenant)
            admissions = record.admissions
            admissions.count = len(ids)
            admissions.event_ids_sha256 = hashlib.sha256("".join(ids).encode()).digest()
            admissions.first_event_id, admissions.last_event_id = ids[0], ids[-1]
            self._put(record)

    def _lose(self, count: int) -> None:
        self._lost += count
        metrics.audit_lost.inc(count)

    async def _write(self, records: Sequence[AuditRecord]) -> None:
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
        metrics.audit_records.inc(len(told))


def put_on_record(servicer: Any, service: Any, audit: Audit) -> None:
    """Have every RPC of a service recorded that changes something or shows a payload.

    Args:
        servicer: Its methods are replaced by recorded ones.
        service: The descriptor of the service, which knows them all, those of tomorrow as well.
        audit: Where to.
    """
    for method in service.methods:
        if not method.server_streaming:
            recorded = _recorded(getattr(servicer, method.name), f"{service.full_name}/{method.name}", audit)
            setattr(servicer, method.name, recorded)


def _recorded(
    inner: Callable[[Any, Any], Awaitable[Any]], method: str, audit: Audit
) -> Callable[[Any, Any], Awaitable[Any]]:
    plain = method.rpartition("/")[2].startswith(("List", "Get", "Verify"))

    @functools.wraps(inner)
    async def call(request: Any, context: Any) -> Any:
        if plain and not getattr(request, "include_payload", False):
            return await inner(request, context)
        outcome, subject = "INTERNAL", _subject(request)
        try:
            response = await inner(request, context)
            outcome = "OK"
            # What was made is named by the answer alone.
            for made in ("api_key", "added", "retired"):
                subject.update(_subject(getattr(response, made, None)))
            return response
        except ServiceError as error:
            outcome = error.reason
            raise
        finally:
            audit.called(method, caller().key_id, outcome, subject, subject.get("tenant", ""))

    return call


def _subject(message: Any) -> dict[str, str]:
    if message is None:
        return {}
    found = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.name in _SUBJECT and value:
            found[field.name] = ", ".join(value) if field.is_repeated else str(value)
    return found
