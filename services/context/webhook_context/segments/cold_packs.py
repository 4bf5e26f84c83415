"""What contexts leave behind in the cold store: objects of their own, and members of segments."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence

from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.sealing.errors import EnvelopeError

from webhook_context import metrics
from webhook_context.packs.cold_names import home_of, segment_id_of
from webhook_context.packs.segment import place
from webhook_context.segments.compaction import Compaction
from webhook_context.segments.member_keys import MemberKeys


class ColdPacks:
    """Lets nobody have them any more.

    Args:
        cold: Has the objects.
        member_keys: Of segments.
        compaction: Rewrites segments.
        forget_ms: How often keys of members that nobody needs are dropped.
    """

    def __init__(
        self, cold: ObjectStore, member_keys: MemberKeys, compaction: Compaction, *, forget_ms: int
    ) -> None:
        self._cold = cold
        self._member_keys = member_keys
        self._compaction = compaction
        self._forget_ms = forget_ms

    async def forget(self, tenant: str, pointers: Sequence[str]) -> None:
        """Delete objects; of members of segments, all copies of their keys. Idempotent.

        After that nobody can read them. The bytes of a member stay, unreadable, until its segment is
        rewritten: by itself, or with `rewrite`.

        Args:
            tenant: Whose they are.
            pointers: As contexts have them.

        Raises:
            ObjectTrouble: Some may be left; to be repeated.
        """
        members = defaultdict(set)
        alone = []
        for pointer in pointers:
            lies = place(pointer)
            if lies is None:
                alone.append(self._cold.delete(pointer))
            else:
                members[segment_id_of(home_of(lies.segment))].add(lies.offset)
        metrics.COLD_DELETES.inc(len(alone))
        await _all_done(alone)
        await _all_done(
            self._forget_members(tenant, segment_id, offsets) for segment_id, offsets in members.items()
        )

    async def rewrite(self, tenant: str, pointers: Iterable[str]) -> None:
        """Let nothing of forgotten members stay: the segments they lie in are rewritten or deleted at once.

        What lives in these segments goes on living elsewhere; who reads it at this moment reads it again.

        Args:
            tenant: Whose they are.
            pointers: Of members that were forgotten; others are passed over.

        Raises:
            ObjectTrouble: Some bytes may be left; to be repeated.
            REDIS_TROUBLE: The same.
        """
        places = filter(None, map(place, pointers))
        segment_ids = sorted({segment_id_of(home_of(lies.segment)) for lies in places})
        await self._compaction.rewrite(tenant, segment_ids)

    def grace_ms(self, pointer: str, grace_ms: int) -> int:
        """How long what a pointer names stays once it is replaced.

        Members wait for each other, so that their segment's keys are made anew once for many.
        """
        if not grace_ms or place(pointer) is None or not self._forget_ms:
            return grace_ms
        until_ms = time.time() * 1000 + grace_ms
        return grace_ms + int(-until_ms % self._forget_ms)

    async def _forget_members(self, tenant: str, segment_id: str, offsets: set[int]) -> None:
        try:
            await self._member_keys.forget(tenant, segment_id, offsets)
        except EnvelopeError as error:
            raise ObjectTrouble(type(error).__name__) from None


async def _all_done(work: Iterable[Awaitable[None]]) -> None:
    """All of it is tried before the first trouble is told."""
    for done in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done
