"""What security puts on record beside admin calls: who was turned away, who was let in, what was changed.

What happens often is counted here and becomes one record a second; the rest is as in
`webhook_shared.audit.trail`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_QUARANTINED, Verdict
from webhook.security.v1.admission_pb2 import Refusal as RefusalCause
from webhook.security.v1.admission_service_pb2 import Conflict
from webhook.security.v1.audit_pb2 import AuditChangeKind
from webhook_shared.audit.chain import AuditChain, Seal
from webhook_shared.audit.trail import Recorder

from webhook_security.refusals import Refusal
from webhook_security.registry.sources import Source

_BELIEVED = frozenset({OUTCOME_ADMITTED, OUTCOME_QUARANTINED})
_MOST_TALLIES = 512
_MOST_ADDRESSES = 4


class _Denials:
    __slots__ = ("addresses", "count")

    def __init__(self) -> None:
        self.count = 0
        self.addresses: set[str] = set()


class Audit(Recorder):
    """Writes the chain.

    Args:
        chain: Where to.
        seal: As of Recorder.
        every_s: How long to gather before writing, seconds.
    """

    def __init__(self, chain: AuditChain, seal: Seal | None = None, *, every_s: float) -> None:
        super().__init__(chain, seal, every_s=every_s)
        self._denials: dict[tuple[str, str, Refusal], _Denials] = {}
        self._admitted: dict[str, list[str]] = {}

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
