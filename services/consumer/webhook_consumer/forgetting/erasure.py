"""Forgetting events wherever they wait, were given up or are kept.

Whoever works on an event at this moment goes on; what comes of it the context store refuses, which has said
so before it asks here. In a dry run nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace

from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.telemetry import log

from webhook_consumer.archive.events import Archived
from webhook_consumer.archive.facade import Archive
from webhook_consumer.archive.replay_rehearsal import entry_of
from webhook_consumer.archive.segments import Unreadable
from webhook_consumer.entry import Entry
from webhook_consumer.forgetting.match import Match, Matcher, Normalize, Wanted
from webhook_consumer.forgetting.places import Place
from webhook_consumer.opener import Opener

ARCHIVE = "archive"
COLD_STORE_UNREACHABLE, DAMAGED, NOT_SEARCHABLE = "COLD_STORE_UNREACHABLE", "DAMAGED", "NOT_SEARCHABLE"
_STAYING = {Match.SHARED: "SHARED", Match.UNDECODABLE: "UNDECODABLE", Match.UNREADABLE: "UNREADABLE"}
"""What stays, and why."""


@dataclass(slots=True)
class Sum:
    """What became of it in one place; `left` is part of `found`, and `reason` says why."""

    found: int = 0
    erased: int = 0
    left: int = 0
    reason: str = ""

    def leave(self, reason: str, count: int) -> None:
        """So many stay; of several reasons the last one is told."""
        self.found += count
        self.left += count
        self.reason = reason


@dataclass(slots=True)
class Sums:
    """By place, and which have changed."""

    by_place: dict[str, Sum] = field(default_factory=dict)

    def of(self, place: str) -> Sum:
        """Of one place."""
        return self.by_place.setdefault(place, Sum())


class Forgetting:
    """Forgets when told to.

    Args:
        places: Where entries may be; asked each time, since more may come.
        archive: Keeps processed events.
        opener: Opens events.
        normalize: Says which contexts they are about.
        reads_sqs: Whether events also come from SQS, which nobody can look through.
    """

    def __init__(
        self,
        places: Callable[[], Sequence[Place]],
        archive: Archive,
        opener: Opener,
        normalize: Normalize,
        *,
        reads_sqs: bool,
    ) -> None:
        self._places = places
        self._archive = archive
        self._opener = opener
        self._normalize = normalize
        self._reads_sqs = reads_sqs

    async def carry_out(self, wanted: Wanted, *, dry_run: bool) -> AsyncIterator[Sums]:
        """Forget, and tell how far it has come. The sums are of one object.

        Raises:
            Outage, REDIS_TROUBLE: The rest is not forgotten; to be repeated.
        """
        matcher, sums = Matcher(self._opener, self._normalize, wanted), Sums()
        gone: set[str] = set()
        for place in self._places():
            async for found in self._through(place, matcher, sums.of(place.name), dry_run=dry_run):
                gone.update(entry.text(b"id") for entry in found)
                yield sums
        if self._reads_sqs:
            sums.of("sqs").leave(NOT_SEARCHABLE, 0)
        held = sums.of(ARCHIVE)
        try:
            # Whoever is at one of them at this moment may still archive it.
            known = replace(wanted, event_ids=wanted.event_ids | gone)
            async for _ in self._through_archive(known, matcher, held, dry_run=dry_run):
                yield sums
        except ObjectTrouble as error:
            log.warning("forgetting.cold_store_unreachable", what=str(error))
            held.leave(COLD_STORE_UNREACHABLE, 0)
        except Unreadable as error:
            # Nobody knows what is in it; the others are not looked at either before somebody looks at this.
            log.error("forgetting.damaged_segment", segment=str(error))
            held.leave(DAMAGED, 0)
        yield sums

    async def _through(
        self, place: Place, matcher: Matcher, held: Sum, *, dry_run: bool
    ) -> AsyncIterator[list[Entry]]:
        async for entries in place.pages():
            matches = await matcher.of(entries)
            found = [entry for entry, match in zip(entries, matches, strict=True) if match is Match.WHOLLY]
            held.found += len(found)
            _leave(held, matches)
            if not dry_run:
                await place.drop(found)
                held.erased += len(found)
            yield found

    async def _through_archive(
        self, wanted: Wanted, matcher: Matcher, held: Sum, *, dry_run: bool
    ) -> AsyncIterator[None]:
        if wanted.is_whole and not dry_run:
            forgotten = await self._archive.forget(wanted.tenant)
            held.found, held.erased = held.found + forgotten, held.erased + forgotten
            return
        if not dry_run:
            # From here on all that is to be looked at lies in segments.
            await self._archive.flush()
        ids: set[str] = set()
        async for events in self._archive.events_of(wanted.tenant, wanted.since_ms):
            matches = await self._archived(matcher, events)
            # What other contexts have of an event they have by themselves: it need not be replayed.
            ids |= {
                event.event_id
                for event, match in zip(events, matches, strict=True)
                if match in {Match.WHOLLY, Match.SHARED} or event.event_id in wanted.event_ids
            }
            _leave(held, [match for match in matches if match is not Match.SHARED])
            yield
        held.found += len(ids)
        if not dry_run and (ids := ids | wanted.event_ids):
            # Also those that are not there: they may be on their way.
            await self._archive.forget(wanted.tenant, ids)
            held.erased = held.found - held.left

    async def _archived(self, matcher: Matcher, events: Sequence[Archived]) -> list[Match]:
        return await matcher.of([entry_of(event) for event in events])


def _leave(held: Sum, matches: Sequence[Match]) -> None:
    for match, count in Counter(matches).items():
        if match in _STAYING:
            held.leave(_STAYING[match], count)
