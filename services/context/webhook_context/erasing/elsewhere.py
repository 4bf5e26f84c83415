"""Places that other services keep, as an erasure sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from webhook.erasure.v1 import erasure_pb2 as pb

from webhook_context.erasing.jobs import Scope, Wanted
from webhook_context.erasing.tally import Count


@dataclass(frozen=True, slots=True)
class Question:
    """What another service is asked to forget.

    Attributes:
        event_ids: Known to be part of it.
        since_ms: Only what was written since then need be looked at, where it does not change; 0 for all.
        erasure_id: For the record.
        key_id: Of the credential that asked.
    """

    wanted: Wanted
    event_ids: Sequence[str]
    since_ms: int
    dry_run: bool
    erasure_id: str
    key_id: str

    def message(self) -> pb.Wanted:
        """As the contract has it."""
        wanted = self.wanted
        return pb.Wanted(
            tenant=wanted.tenant,
            context_id=wanted.what if wanted.scope is Scope.CONTEXT else "",
            subject=wanted.what if wanted.scope is Scope.SUBJECT else "",
            event_ids=self.event_ids,
            since_ms=self.since_ms,
        )


class Elsewhere(Protocol):
    """Another service that keeps something.

    Attributes:
        name: Of the service.
    """

    name: str

    def forget(self, question: Question) -> AsyncIterator[list[Count]]:
        """Forget it; tells of each place as it goes, in totals of this call.

        Raises:
            ServiceError: The rest is not forgotten; to be repeated.
        """
        ...


def counts_of(places: Iterable[pb.Place]) -> list[Count]:
    """What a service tells."""
    return [
        Count(place.name, place.found_count, place.erased_count, place.left_count, place.reason)
        for place in places
    ]
