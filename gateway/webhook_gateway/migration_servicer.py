"""`webhook.ingest.v1.MigrationService`: moving events between two queues, for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from webhook.ingest.v1 import migration_service_pb2 as messages
from webhook.ingest.v1 import migration_service_pb2_grpc
from webhook_shared.errors import FailedPrecondition, InvalidArgument, Unavailable
from webhook_shared.redis import REDIS_TROUBLE, RedisError

if TYPE_CHECKING:
    # Only its type: what it is made of costs a gateway without SQS 25 MB.
    from webhook_gateway.publishing.migration import Migration

DEFAULT_WINDOW_S = 600.0
DEFAULT_SETTLE_S = 30.0
LONGEST_S = 86_400.0

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class MigrationServicer(migration_service_pb2_grpc.MigrationServiceServicer):
    """Answers operators.

    Args:
        migration: None where this gateway does not know SQS.
    """

    def __init__(self, migration: Migration | None) -> None:
        self._known = migration

    @property
    def _migration(self) -> Migration:
        if self._known is None:
            raise FailedPrecondition(
                "SQS_NOT_CONFIGURED",
                "this gateway knows no SQS: set SQS_QUEUE_URL, and DUAL_WRITE_MODE or WEBHOOK_BACKEND",
            )
        return self._known

    async def GetMigration(
        self, request: messages.GetMigrationRequest, context: Any
    ) -> messages.GetMigrationResponse:
        """Where the migration stands. Errors: FAILED_PRECONDITION/SQS_NOT_CONFIGURED."""
        status = await self._migration.status()
        return messages.GetMigrationResponse(
            backend=status.backend,
            dual_write=status.dual_write,
            sqs_queue_url=status.queue_url,
            redis_share_percent=status.redis_share_percent,
            copies_waiting_count=status.copies_waiting,
            copies_lost_count=status.copies_lost,
            sqs_waiting_count=status.sqs_waiting,
            sqs_in_flight_count=status.sqs_in_flight,
        )

    async def RampMigration(
        self, request: messages.RampMigrationRequest, context: Any
    ) -> messages.RampMigrationResponse:
        """Set the share of events that go through Redis.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; FAILED_PRECONDITION/SQS_NOT_CONFIGURED, BACKEND_NOT_SQS;
        UNAVAILABLE/REDIS_UNREACHABLE.
        """
        percent = request.redis_share_percent if request.HasField("redis_share_percent") else None
        if percent is not None and not 0 <= percent <= 100:
            raise InvalidArgument("no such share", fields={"redis_share_percent": "0 to 100"})
        if self._migration.backend != "sqs":
            raise FailedPrecondition(
                "BACKEND_NOT_SQS",
                "with the backend redis every event goes through Redis: set WEBHOOK_BACKEND=sqs",
            )
        try:
            share = await self._migration.ramp(percent)
        except _TROUBLE:
            raise _unreachable() from None
        return messages.RampMigrationResponse(redis_share_percent=share)

    async def CompareMigration(
        self, request: messages.CompareMigrationRequest, context: Any
    ) -> messages.CompareMigrationResponse:
        """Compare both queues by event id.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; FAILED_PRECONDITION/SQS_NOT_CONFIGURED, DUAL_WRITE_OFF;
        UNAVAILABLE/REDIS_UNREACHABLE.
        """
        window_s = _seconds(request, "window", DEFAULT_WINDOW_S)
        settle_s = _seconds(request, "settle", DEFAULT_SETTLE_S)
        if not self._migration.dual_write:
            raise FailedPrecondition(
                "DUAL_WRITE_OFF", "nothing is copied, so nothing is noted: set DUAL_WRITE_MODE=true"
            )
        try:
            found = await self._migration.compare(window_s=window_s, settle_s=settle_s)
        except _TROUBLE:
            raise _unreachable() from None
        response = messages.CompareMigrationResponse(
            counts=[
                messages.PlaceCount(place=place, event_count=count) for place, count in found.counts.items()
            ],
            gaps=[
                messages.Gap(seen_at=gap.seen_at, not_at=gap.not_at, event_count=gap.count, event_ids=gap.ids)
                for gap in found.gaps
            ],
            lags=[
                messages.Lag(
                    seen_at=lag.seen_at,
                    then_at=lag.then_at,
                    p50=_duration(lag.p50_ms),
                    p99=_duration(lag.p99_ms),
                )
                for lag in found.lags
            ],
        )
        response.since_time.FromMilliseconds(found.since_ms)
        response.until_time.FromMilliseconds(found.until_ms)
        return response


def _seconds(request: messages.CompareMigrationRequest, field: str, default: float) -> float:
    if not request.HasField(field):  # type: ignore[arg-type]  # a name of ours, as a variable
        return default
    seconds = getattr(request, field).ToTimedelta().total_seconds()
    if not 0 <= seconds <= LONGEST_S:
        raise InvalidArgument("no such time", fields={field: "0s to 24h"})
    return float(seconds)


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration


def _unreachable() -> Unavailable:
    return Unavailable("REDIS_UNREACHABLE", "Redis does not answer; try again")
