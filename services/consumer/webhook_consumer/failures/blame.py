"""Who is to blame when a call for many items fails: the other side, or one of the items."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
from webhook_shared.errors import ServiceError

from webhook_consumer.entry import Cause, Dead, Failure, Outage, Outcome, Retry

T = TypeVar("T")
R = TypeVar("R")

# Whatever was asked, the answer would have been this.
OUTAGES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
# However often it is asked, the answer will be this.
FINAL = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.DATA_LOSS,
    }
)
_KINDS = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: Failure.RATE_LIMITED,
    grpc.StatusCode.UNAVAILABLE: Failure.AWAY,
}
LONGEST_DETAIL_CHARS = 300


async def each(
    call: Callable[[Sequence[T]], Awaitable[Sequence[R | ServiceError]]], items: Sequence[T]
) -> list[R | ServiceError]:
    """Call for all items; where the call as a whole is refused, for halves of them, down to the one.

    Returns:
        A result per item, in order.

    Raises:
        Outage: The other side is away, or says so of every item.
    """
    if not items:
        return []
    try:
        results = list(await call(items))
    except ServiceError as error:
        if error.code in OUTAGES:
            silence = error.code is grpc.StatusCode.DEADLINE_EXCEEDED
            raise Outage(detail_of(error), is_silence=silence) from error
        if len(items) == 1 or _asks_to_wait(error):
            return [error] * len(items)
        middle = len(items) // 2
        return [*await each(call, items[:middle]), *await each(call, items[middle:])]
    return results


def raise_if_away(results: Sequence[object], *, least: int = 1) -> None:
    """Raise Outage where every single item was answered with UNAVAILABLE, and there are so many at least."""
    errors = [result for result in results if isinstance(result, ServiceError)]
    away = [error for error in errors if error.code is grpc.StatusCode.UNAVAILABLE]
    if len(away) >= least and len(away) == len(results):
        raise Outage(detail_of(away[0]))


def failure(error: ServiceError) -> Outcome:
    """What an error means for the entry that met it."""
    if error.code in FINAL:
        return Dead(Cause.PERMANENT, detail_of(error))
    kind = _KINDS.get(error.code, Failure.TRANSIENT)
    return Retry(detail_of(error), after_s=error.retry_after_s, failure=kind)


def _asks_to_wait(error: ServiceError) -> bool:
    # Asking for halves of it would be asking more often. Without a time it may be about the size.
    return error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_s is not None


def detail_of(error: ServiceError) -> str:
    """An error in one line."""
    return str(error).splitlines()[0][:LONGEST_DETAIL_CHARS]
