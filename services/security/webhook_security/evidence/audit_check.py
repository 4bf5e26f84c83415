"""Finds what is wrong with an audit chain, and where."""

from __future__ import annotations

from webhook.security.v1 import audit_pb2
from webhook.security.v1.audit_pb2 import AuditEntry, AuditFinding, AuditFindingKind
from webhook_shared.audit.chain import BEGINNING, AuditChain, Head, link

MOST_FINDINGS = 100

_PAGE = 200
_NEW = audit_pb2.AUDIT_CHAIN_START_REASON_NEW


class AuditCheck:
    """Goes along a chain, entry by entry.

    Args:
        base: Where it begins: everything up to there was let go of.
        base_hash: The hash of the last entry that was.

    Attributes:
        findings: What is wrong.
        entries: How many were looked at.
        lost: Records that could not be kept, as the chain itself tells.
        first: Sequence of the first entry; 0 where there is none.
        last: Sequence of the last entry.
        last_hash: Its hash.
    """

    def __init__(self, base: int = 0, base_hash: bytes = BEGINNING) -> None:
        self.findings: list[AuditFinding] = []
        self.entries = self.lost = self.first = 0
        self.last, self.last_hash = base, base_hash
        self._follows = True

    def entry(self, place: str, entry: AuditEntry) -> None:
        """Look at the next entry.

        Args:
            place: The id at which it stands: "<sequence>-0".
            entry: What stands there.
        """
        sequence = entry.sequence
        self.entries += 1
        self.first = self.first or sequence
        if place != f"{sequence}-0":
            self._find(audit_pb2.AUDIT_FINDING_KIND_INSERTED, sequence, f"{place} was put in")
            return
        self._link(entry)
        self._tell(entry)
        self.last, self.last_hash = sequence, entry.hash

    def _link(self, entry: AuditEntry) -> None:
        sequence, expected = entry.sequence, self.last + 1
        if sequence > expected:
            missing = f"{expected} is missing"
            if sequence > expected + 1:
                missing = f"{expected} to {sequence - 1} are missing"
            self._find(audit_pb2.AUDIT_FINDING_KIND_REMOVED, expected, missing, sequence - 1)
            self._follows = False
        if entry.record.sequence not in (0, sequence):
            self._find(
                audit_pb2.AUDIT_FINDING_KIND_MOVED,
                sequence,
                f"what stands at {sequence} was put at {entry.record.sequence}",
            )
            # The next one would not follow from it, either; once is enough to say it.
            self._follows = False
            return
        if entry.hash != link(entry.previous_hash, sequence, entry.content):
            self._find(audit_pb2.AUDIT_FINDING_KIND_CHANGED, sequence, f"{sequence} was changed")
        elif self._follows and entry.previous_hash != self.last_hash:
            self._find(
                audit_pb2.AUDIT_FINDING_KIND_UNLINKED,
                sequence,
                f"{sequence} does not follow from {self.last}: one of the two was replaced",
            )
        self._follows = True

    def _tell(self, entry: AuditEntry) -> None:
        fact = entry.record.WhichOneof("fact")
        if fact == "loss":
            self.lost += entry.record.loss.count
        if fact == "chain_start" and entry.record.chain_start.reason != _NEW:
            expected = entry.record.chain_start.expected_sequence
            self._find(
                audit_pb2.AUDIT_FINDING_KIND_RESUMED,
                entry.sequence,
                f"the chain was taken up again at {entry.sequence}, after {expected} had been reached: its "
                "head was missing, set back or not ours",
            )

    def end(self, head: Head | None) -> None:
        """Hold the end against the sealed head; None where that is missing or not ours."""
        if head is None:
            if self.entries:
                missing = "the seal of the head is missing or not ours"
                self._find(audit_pb2.AUDIT_FINDING_KIND_SEAL, self.last, missing)
            return
        # What went while we were reading was let go of in order.
        self.findings = [
            found
            for found in self.findings
            if found.kind != audit_pb2.AUDIT_FINDING_KIND_REMOVED or found.last_sequence > head.base
        ]
        kind = audit_pb2.AUDIT_FINDING_KIND_END
        if self.last < head.sequence:
            self._find(
                kind,
                self.last + 1,
                f"the end is missing: {self.last + 1} to {head.sequence}",
                head.sequence,
            )
        elif self.last > head.sequence:
            self._find(kind, head.sequence + 1, "entries were put on behind the sealed end", self.last)
        elif self.last_hash != head.hash:
            self._find(kind, self.last, f"{self.last}, the end, was replaced")

    def _find(self, kind: AuditFindingKind.ValueType, sequence: int, message: str, last: int = 0) -> None:
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(
                AuditFinding(kind=kind, sequence=sequence, last_sequence=last or sequence, message=message)
            )


async def checked(chain: AuditChain) -> AuditCheck:
    """Check a whole chain, while others append to it."""
    head = await chain.head()
    check = AuditCheck(head.base, head.base_hash) if head else AuditCheck()
    place = ""
    while True:
        page = await chain.places(place, _PAGE)
        for place, entry in page:
            if head is None and check.entries == 0:
                check.last, check.last_hash = entry.sequence - 1, entry.previous_hash
            check.entry(place, entry)
        if page:
            head = await chain.head()
        if not page or (head and head.sequence <= check.last and len(page) < _PAGE):
            check.end(head)
            return check
