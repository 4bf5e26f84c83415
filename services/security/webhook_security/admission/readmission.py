"""Judging refused deliveries again, after what refused them was mended."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence

import structlog
from webhook.security.v1.admission_pb2 import Outcome
from webhook.security.v1.admission_service_pb2 import Operator, Readmission, SettledReadmission
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    item_status,
)
from webhook_shared.rpc.identity import ALL_TENANTS

from webhook_security.admission.judge import Admission
from webhook_security.admission.tenants import TenantKeys
from webhook_security.case import Again, Case
from webhook_security.evidence.audit import Audit
from webhook_security.evidence.rejection_store import RejectionStore
from webhook_security.refusals import Refusal

MOST = 64
MOST_BYTES = 32 * 2**20
"""Bodies of one call: their verdicts have to fit into one message."""

METHOD = "webhook.ingest.v1.IngestAdminService/RetryRejections"

NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = structlog.get_logger()


class Readmissions:
    """Gives refused deliveries another hearing.

    Args:
        store: Where they are.
        admission: Judges, by the secrets and the catalogue of now.
        keys: Holds what sealing needs.
        audit: Hears of it; None where nothing is recorded.
    """

    def __init__(
        self, store: RejectionStore, admission: Admission, keys: TenantKeys, audit: Audit | None
    ) -> None:
        self._store, self._admission, self._keys, self._audit = store, admission, keys, audit

    async def judge(self, ids: Sequence[str], operator: Operator, nonce: str = "") -> list[Readmission]:
        """One readmission per id, in order.

        Args:
            ids: Of the rejections.
            operator: Who wants it.
            nonce: Set where what is believed is to be an event of its own, once for each nonce.

        Raises:
            InvalidArgument: FIELD_INVALID: no id, too many, or one twice; no nonce of ours.
        """
        if nonce and not NONCE.fullmatch(nonce):
            raise InvalidArgument("not a nonce", fields={"nonce": NONCE.pattern})
        if not 1 <= len(ids) <= MOST or len(set(ids)) != len(ids):
            raise InvalidArgument(
                f"1 to {MOST} different ids", fields={"rejection_ids": f"1 to {MOST}, each once"}
            )
        tenants = set(operator.tenants)
        rooms = [room for room in self._store.rooms() if {room.tenant, ALL_TENANTS} & tenants]
        found = await self._store.deliveries(rooms, ids)
        readmissions = {rejection_id: Readmission(rejection_id=rejection_id) for rejection_id in ids}
        cases: list[Case] = []
        room_bytes = MOST_BYTES
        for rejection_id, readmission in readmissions.items():
            refused = found.get(rejection_id)
            if refused is None:
                _fail(readmission, NotFound("REJECTION_NOT_FOUND", "there is no such rejection (any more)"))
            elif refused.rejection.event_id:
                readmission.settled_event_id = refused.rejection.event_id
            elif refused.delivery is None:
                _fail(
                    readmission,
                    FailedPrecondition("DELIVERY_NOT_KEPT", "its delivery is not kept for a retry"),
                )
            elif cases and len(refused.delivery.body) > room_bytes:
                _fail(readmission, ResourceExhausted("BATCH_TOO_LARGE", "try this one in another call"))
            else:
                room_bytes -= len(refused.delivery.body)
                received_s = refused.rejection.received_time.ToNanoseconds() / 1e9
                again = Again(_event_id(rejection_id, nonce), received_s, nonce)
                cases.append(self._admission.case(refused.delivery, readmission.verdict, again))
        await self._keys.hold(case.source.tenant for case in cases if case.source)
        self._admission.judge(cases)
        for case in cases:
            self._tell(operator, case)
        return list(readmissions.values())

    async def settle(self, settled: Iterable[SettledReadmission]) -> None:
        """They are in their stream: let go of the deliveries.

        Raises:
            InvalidArgument: FIELD_INVALID: too many.
        """
        pairs = [(each.rejection_id, each.event_id) for each in settled]
        if len(pairs) > MOST:
            raise InvalidArgument(f"at most {MOST} at once", fields={"settled": f"holds {len(pairs)}"})
        await self._store.settle(pairs)

    def _tell(self, operator: Operator, case: Case) -> None:
        verdict, again = case.verdict, case.again
        assert again is not None
        outcome = Outcome.Name(verdict.outcome).removeprefix("OUTCOME_")
        if verdict.refusal:
            outcome = Refusal(verdict.refusal).name
        log.info("rejection.retried", rejection_id=again.event_id, outcome=outcome, key_id=operator.key_id)
        if self._audit and case.source:
            subject = {"rejection_id": again.event_id, "tool": case.source.tool}
            self._audit.called(METHOD, operator.key_id, outcome, subject, case.source.tenant)
        if self._audit:
            self._audit.admitted([verdict])


def _event_id(rejection_id: str, nonce: str) -> str:
    # Its own for each nonce: who stores events knows them by their ids.
    return str(uuid.uuid5(uuid.UUID(rejection_id), nonce)) if nonce else rejection_id


def _fail(readmission: Readmission, error: ServiceError) -> None:
    readmission.status.CopyFrom(ItemStatus(**item_status(error)))
