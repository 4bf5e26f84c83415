"""Lets refused deliveries in after all: security judges them again, and what it believes is published."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from webhook.ingest.v1.ingest_admin_service_pb2 import RetryResult
from webhook.security.v1.admission_service_pb2 import Readmission
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import FailedPrecondition, ServiceError, item_status
from webhook_shared.errors import Unavailable as UnavailableError
from webhook_shared.rpc.identity import Caller

from webhook_gateway.outcome import Accepted, Answered, Duplicate, Publication, Refused, Unavailable
from webhook_gateway.publishing.keeping import Keeper
from webhook_gateway.security_client import SecurityClient, judged

MOST = 64

log = structlog.get_logger()


class Retries:
    """Gives refused deliveries another try.

    Args:
        security: Judges them again.
        keeper: Keeps what is believed, as it keeps what comes in.
    """

    def __init__(self, security: SecurityClient, keeper: Keeper) -> None:
        self._security = security
        self._keeper = keeper

    async def retry(self, ids: Sequence[str], operator: Caller, nonce: str = "") -> list[RetryResult]:
        """One result per id, in order.

        The events have the ids of their rejections, or ids of these and the nonce, so whatever is tried twice
        is published once.

        Raises:
            ServiceError: Security can't be reached in time, or fails.
        """
        readmissions = await self._security.readmit(ids, operator, nonce)
        results = [_judged(readmission) for readmission in readmissions]
        wanted = [result for result in results if isinstance(result, Publication)]
        kept = iter(await self._keeper.publish(wanted) if wanted else ())
        told = [
            _told(readmission.rejection_id, next(kept) if isinstance(result, Publication) else result)
            for readmission, result in zip(readmissions, results, strict=True)
        ]
        published = {result.event_id for result in wanted}
        await self._settle(
            [result for result in told if result.event_id and result.rejection_id in published]
        )
        return told

    async def _settle(self, results: Sequence[RetryResult]) -> None:
        if not results:
            return
        try:
            await self._security.settle((result.rejection_id, result.event_id) for result in results)
        except ServiceError as error:
            # They are published; to try them once more changes nothing.
            log.warning("rejections.not_settled", reason=error.reason, count=len(results))


_Result = Publication | Accepted | Duplicate | Answered | Refused | Unavailable | ItemStatus


def _judged(readmission: Readmission) -> _Result:
    if readmission.status.code:
        return readmission.status
    if readmission.settled_event_id:
        return Duplicate(readmission.settled_event_id)
    return judged(readmission.verdict, readmission.verdict.event.tool)


def _told(rejection_id: str, result: _Result) -> RetryResult:
    told = RetryResult(rejection_id=rejection_id)
    if isinstance(result, ItemStatus):
        told.status.CopyFrom(result)
    elif isinstance(result, Accepted):
        told.event_id, told.quarantined = result.event_id, result.quarantined
    elif isinstance(result, Duplicate):
        told.event_id, told.duplicate = result.first_event_id, True
    elif isinstance(result, Refused):
        told.cause = result.cause
        _fail(told, FailedPrecondition("STILL_REFUSED", "it is refused as before, or for another cause"))
    elif isinstance(result, Unavailable):
        _fail(told, UnavailableError("STREAM_UNREACHABLE", "the event could not be kept; try again"))
    else:
        _fail(told, FailedPrecondition("NO_EVENT", "it is a handshake, of which there is nothing to keep"))
    return told


def _fail(told: RetryResult, error: ServiceError) -> None:
    told.status.CopyFrom(ItemStatus(**item_status(error)))
