"""The errors that callers of the context store can meet."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from webhook_shared.errors import (
    Aborted,
    FailedPrecondition,
    Internal,
    NotFound,
    ServiceError,
    Unavailable,
)
from webhook_shared.redis import REDIS_TROUBLE


def not_found(context_id: str) -> NotFound:
    """There is no such context for this tenant, or it is deleted."""
    return NotFound("CONTEXT_NOT_FOUND", "there is no such context", context_id=context_id)


def deleted(context_id: str) -> FailedPrecondition:
    """The context was deleted; it takes no more events."""
    return FailedPrecondition("CONTEXT_DELETED", "the context was deleted", context_id=context_id)


def etag_mismatch(context_id: str, etag: str) -> Aborted:
    """Somebody else changed the context; `etag` is the one it has now."""
    return Aborted(
        "ETAG_MISMATCH", "the context has changed: read it again", context_id=context_id, etag=etag
    )


def keys_destroyed() -> FailedPrecondition:
    """All that the tenant ever stored is unreadable, on purpose; nothing new is taken."""
    return FailedPrecondition("TENANT_KEYS_DESTROYED", "the tenant's keys have been destroyed")


def unreadable(context_id: str) -> ServiceError:
    """The stored bytes are not what was stored: damaged, swapped, or their key is gone."""
    return ServiceError(
        grpc.StatusCode.DATA_LOSS,
        "CONTEXT_UNREADABLE",
        "the stored context can't be opened",
        metadata={"context_id": context_id},
    )


def dictionary_missing(context_id: str) -> FailedPrecondition:
    """A dictionary that the context was compressed with is nowhere; with it, the context opens again."""
    return FailedPrecondition(
        "DICTIONARY_MISSING", "a compression dictionary of the context is missing", context_id=context_id
    )


def of_item(error: BaseException) -> ServiceError:
    """What one item of a batch answers where Redis answered it with an error."""
    if isinstance(error, REDIS_TROUBLE):
        return Unavailable("STORE_UNREACHABLE", "the store can't take this now; try again")
    return Internal()


class TooLarge(FailedPrecondition):
    """The context is too large to be packed; it stays hot."""

    def __init__(self, context_id: str) -> None:
        super().__init__("CONTEXT_TOO_LARGE", "the context is too large to be packed", context_id=context_id)


def pinned(context_id: str) -> FailedPrecondition:
    """A person wants the context to stay hot."""
    return FailedPrecondition("CONTEXT_PINNED", "the context is pinned", context_id=context_id)


def under_way(context_id: str) -> Aborted:
    """The context is being moved, or changed while it was being moved."""
    return Aborted(
        "TRANSITION_UNDER_WAY", "the context is being moved or changed; try again", context_id=context_id
    )


def cold_store_unreachable() -> Unavailable:
    """What the cold store has of the context can't be had now; all else of it can."""
    return Unavailable("COLD_STORE_UNREACHABLE", "the cold store can't be reached; try again")


def event_erased(context_id: str) -> FailedPrecondition:
    """The event names a subject that was erased since it happened."""
    return FailedPrecondition(
        "EVENT_ERASED", "the event is about somebody who was erased since", context_id=context_id
    )


def tenant_not_found() -> NotFound:
    """Nothing is known of such a tenant, or the caller does not cover it: the same for both."""
    return NotFound("TENANT_NOT_FOUND", "there is no such tenant")


def erasure_under_way(retry_after_s: float) -> ServiceError:
    """Somebody is at this very erasure, or has died at it a moment ago."""
    return ServiceError(
        grpc.StatusCode.ABORTED,
        "ERASURE_UNDER_WAY",
        "somebody is at this erasure: wait for them, or try again when their lease is over",
        retry_after_s=retry_after_s,
    )


def erasure_incomplete(places: Iterable[str], *, again: bool) -> ServiceError:
    """Something could not be reached or erased; running it again goes on where it can."""
    code = grpc.StatusCode.UNAVAILABLE if again else grpc.StatusCode.FAILED_PRECONDITION
    return ServiceError(
        code,
        "ERASURE_INCOMPLETE",
        "not everything is erased: the places say why",
        metadata={"places": ",".join(sorted(places))},
    )
