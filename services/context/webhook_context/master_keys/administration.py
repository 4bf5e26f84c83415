"""Master keys as the contract has them: who may, what is asked, what is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook_shared.errors import InvalidArgument, PermissionDenied
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import ALL_TENANTS, Caller
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKeys

from webhook_context import errors
from webhook_context.master_keys.key_tables import KeyTables
from webhook_context.master_keys.rotation import PER_SECOND, Phase, Rotation, State, Timing

MOST_PER_SECOND = 100_000
TIMING = Timing()


class KeyAdministration:
    """Answers operators of all tenants.

    Args:
        client: Has the record of the master keys.
        master_keys: Of this process.
        tables: Of the tenants.
        copies: Of the tables.
        rotation: From one master key to the next.
    """

    def __init__(
        self,
        client: Client,
        master_keys: MasterKeys,
        tables: KeyTables,
        copies: KeyCopies,
        rotation: Rotation,
    ) -> None:
        self._client = client
        self._master_keys = master_keys
        self._tables = tables
        self._copies = copies
        self._rotation = rotation

    async def rotate(self, who: Caller, request: pb.RotateKeysRequest) -> pb.KeyRotation:
        """Begin, or tell what that would be.

        Raises:
            ServiceError: TENANT_NOT_ALLOWED, FIELD_INVALID, ROTATION_UNDER_WAY.
            REDIS_TROUBLE: Begun or not.
        """
        _admit(who)
        if not 0 <= request.max_per_second <= MOST_PER_SECOND:
            fault = f"must be 0 to {MOST_PER_SECOND:,}"
            raise InvalidArgument(f"max_per_second {fault}", fields={"max_per_second": fault})
        per_second = request.max_per_second or PER_SECOND
        if not request.dry_run:
            return told(await self._rotation.order(per_second))
        await self._tables.discover()
        under = await self._tables.counted()
        target = self._master_keys.newest.id
        return pb.KeyRotation(
            target_master_key_id=target,
            tenant_count=len(await self._tables.tenants()),
            rewrapped_count=under.total() - under[target],
            max_per_second=per_second,
        )

    async def status(self, who: Caller) -> pb.GetKeysResponse:
        """What each master key is needed for, counted now.

        Raises:
            ServiceError: TENANT_NOT_ALLOWED, COLD_STORE_UNREACHABLE.
            REDIS_TROUBLE: Not now.
        """
        _admit(who)
        # Before the record: that of a rotation that is done says so.
        state = await self._rotation.state()
        record = await master_key_record.read(self._client)
        await self._master_keys.reread(self._client)
        under, copied = await self._tables.counted(), await self._copied()
        since, retired = master_key_record.since(record), master_key_record.retired(record)
        needed = master_key_record.needed(record)
        response = pb.GetKeysResponse()
        others = {*needed, *retired, *under, *copied} - set(self._master_keys.ids)
        for key_id in [*self._master_keys.ids, *sorted(others)]:
            response.master_keys.add(
                master_key_id=key_id,
                sealing=key_id == self._master_keys.sealing_id,
                configured=self._master_keys.has(key_id),
                needed=key_id in needed or bool(under[key_id]),
                tenant_key_count=under[key_id],
                key_copy_count=copied[key_id],
                seal_time=_moment(since.get(key_id, 0)),
                retire_time=_moment(retired.get(key_id, 0)),
            )
        if state is not None:
            response.rotation.CopyFrom(told(state))
        return response

    async def _copied(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        try:
            async for key_id in self._copies.master_keys():
                counts[key_id] += 1
        except ObjectTrouble:
            # A directory comes to be with its first object; what is counted already is not all.
            if counts:
                raise errors.cold_store_unreachable() from None
        return counts


def key_administration(
    client: Client,
    objects: ObjectStore,
    master_keys: MasterKeys,
    copies: KeyCopies,
    reseal: Callable[[], Awaitable[None]],
) -> tuple[KeyAdministration, Rotation]:
    """The parts over one Redis and one store of objects; the rotation is to be run."""
    tables = KeyTables(client, master_keys, copies)
    rotation = Rotation(client, master_keys, tables, copies, objects, reseal=reseal, timing=TIMING)
    return KeyAdministration(client, master_keys, tables, copies, rotation), rotation


def told(state: State) -> pb.KeyRotation:
    """A rotation as the contract has it."""
    return pb.KeyRotation(
        target_master_key_id=state.target,
        phase=_PHASES[state.phase],
        start_time=_moment(state.start_ms),
        end_time=_moment(state.end_ms),
        tenant_count=state.tenants,
        done_count=state.tenants_done,
        rewrapped_count=state.rewrapped,
        damaged_count=state.damaged,
        stale_copy_count=state.stale_copies,
        max_per_second=state.per_second,
        trouble=state.trouble,
        retired_master_key_ids=state.retired,
    )


_PHASES = {
    Phase.CHANGING_OVER: pb.KEY_ROTATION_PHASE_CHANGING_OVER,
    Phase.REWRAPPING: pb.KEY_ROTATION_PHASE_REWRAPPING,
    Phase.SETTLING: pb.KEY_ROTATION_PHASE_SETTLING,
    Phase.DONE: pb.KEY_ROTATION_PHASE_DONE,
}


def _admit(who: Caller) -> None:
    if not who.may(ALL_TENANTS):
        raise PermissionDenied("TENANT_NOT_ALLOWED", "this takes a credential for all tenants")


def _moment(unix_ms: int) -> Timestamp | None:
    if not unix_ms:
        return None
    stamp = Timestamp()
    stamp.FromMilliseconds(unix_ms)
    return stamp
