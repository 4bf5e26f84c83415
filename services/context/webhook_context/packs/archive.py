"""Packs in both tiers that hold them: reading one back and making sure that it is the one."""

from __future__ import annotations

import asyncio
import hmac

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.pack_pb2 import Pack
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore
from webhook_shared.sealing.errors import Undecodable

from webhook_context import metrics
from webhook_context.packs.packing import Packer, checksum
from webhook_context.packs.segment import place

log = structlog.get_logger()

LARGE_PACK_BYTES = 64 * 1024
"""Larger ones are opened in a thread, so that other calls go on meanwhile."""


class Archive:
    """Reads packs."""

    def __init__(self, packer: Packer, cold: ObjectStore) -> None:
        self._packer = packer
        self._cold = cold

    async def find(self, at_hand: bytes | None, name: str, expected: str) -> tuple[bytes, Tier.ValueType]:
        """The bytes of a pack, and the tier that had them.

        Args:
            at_hand: What Redis has of it, if anything.
            name: In the cold store: of an object, or the pointer to a member of a segment.
            expected: Its checksum.

        Raises:
            ObjectMissing: Neither has the pack: it has moved, or is lost.
            ObjectTrouble: The cold store can't be reached.
        """
        if at_hand is not None and _is(at_hand, expected):
            return at_hand, Tier.TIER_WARM
        with metrics.COLD_GET_SECONDS.time():
            found = await self._get(name)
            if not _is(found, expected):
                # What was damaged on the way comes whole the next time.
                log.warning("archive.damaged")
                found = await self._get(name)
        if not _is(found, expected):
            raise ObjectMissing(name)
        return found, Tier.TIER_COLD

    async def _get(self, name: str) -> bytes:
        lies = place(name)
        if lies is None:
            return await self._cold.get(name)
        return lies.content(await self._cold.part(lies.segment, lies.offset, lies.length))

    async def open(self, tenant: str, context_id: str, sealed: bytes) -> Pack:
        """The content of a pack.

        Raises:
            EnvelopeError: It is damaged, or of another tenant or context.
        """
        if len(sealed) > LARGE_PACK_BYTES:
            return await asyncio.to_thread(self._packer.open, tenant, context_id, sealed)
        return self._packer.open(tenant, context_id, sealed)


def _is(sealed: bytes, expected: str) -> bool:
    return hmac.compare_digest(checksum(sealed), expected)


def intact(sealed: bytes | None, expected: str) -> bytes:
    """What was read back after writing.

    Raises:
        Undecodable: It is not what was written.
    """
    if sealed is None or not _is(sealed, expected):
        raise Undecodable("what was read back is not what was written")
    return sealed
