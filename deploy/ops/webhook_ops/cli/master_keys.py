"""`webhook-cli keys rotate|status`: from one master key to the next."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

_POLL_S = 1.0
_DEADLINE_S = 600.0
_PHASES = {
    admin_pb2.KEY_ROTATION_PHASE_CHANGING_OVER: "changing over",
    admin_pb2.KEY_ROTATION_PHASE_REWRAPPING: "rewrapping",
    admin_pb2.KEY_ROTATION_PHASE_SETTLING: "waiting until every process has noticed",
    admin_pb2.KEY_ROTATION_PHASE_DONE: "done",
}


def rotate(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    per_second: Annotated[int, typer.Option(min=0, help="Tenants per second, at most; 0: 200.")] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is done.")] = True,
    as_json: Json = False,
) -> None:
    """Put everything under ENCRYPTION_MASTER_KEY, so that the keys before it can go.

    First give every service the next key as ENCRYPTION_MASTER_KEY and the last one in
    ENCRYPTION_PREVIOUS_MASTER_KEYS, and restart them; until this command, the last one goes on sealing. It
    works in the background: whoever stops this command stops only the waiting. Needs an operator's key for
    all tenants.

    Examples:
    - `webhook-cli keys rotate --dry-run`

    - `webhook-cli keys rotate --per-second 50`
    """
    request = admin_pb2.RotateKeysRequest(dry_run=dry_run, max_per_second=per_second)

    async def work(door: Door) -> admin_pb2.KeyRotation:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            rotation = (await stub.RotateKeys(request, timeout=_DEADLINE_S)).rotation
            if dry_run or not wait:
                return rotation
            return await _followed(stub, rotation, quiet=as_json)

    rotation = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(rotation))
        return
    out = console()
    if dry_run:
        keys = f"{rotation.rewrapped_count} keys of {rotation.tenant_count} tenants"
        out.print(text(f"{keys} would be wrapped under {rotation.target_master_key_id}"))
        return
    out.print(text(_told(rotation)))
    if rotation.retired_master_key_ids:
        retired = ", ".join(rotation.retired_master_key_ids)
        out.print(text(f"no longer needed: {retired}; take it out of ENCRYPTION_PREVIOUS_MASTER_KEYS"))


def status(ctx: typer.Context, *, as_json: Json = False) -> None:
    """Show which master keys there are, what still needs each, and which may go. Needs an operator's key.

    Example: `webhook-cli keys status`
    """

    async def work(door: Door) -> admin_pb2.GetKeysResponse:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            return await stub.GetKeys(admin_pb2.GetKeysRequest(), timeout=_DEADLINE_S)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(found))
        return
    out = console()
    rows = [
        (
            one.master_key_id,
            _standing(one),
            "yes" if one.configured else "no",
            str(one.tenant_key_count),
            str(one.key_copy_count),
            moment(one.seal_time) if one.HasField("seal_time") else NONE,
        )
        for one in found.master_keys
    ]
    out.print(table(("master key", "", "configured", "tenants' keys", "copies", "seals since"), rows))
    if found.HasField("rotation"):
        out.print(text(_told(found.rotation)))


async def _followed(
    stub: context_admin_service_pb2_grpc.ContextAdminServiceAsyncStub,
    rotation: admin_pb2.KeyRotation,
    *,
    quiet: bool,
) -> admin_pb2.KeyRotation:
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console(), transient=True, disable=quiet) as progress:
        task = progress.add_task(_told(rotation))
        while rotation.phase != admin_pb2.KEY_ROTATION_PHASE_DONE:
            await asyncio.sleep(_POLL_S)
            rotation = (await stub.GetKeys(admin_pb2.GetKeysRequest(), timeout=_DEADLINE_S)).rotation
            progress.update(task, description=_told(rotation))
            if rotation.damaged_count or rotation.stale_copy_count:
                sys.stderr.write("held up; it goes on by itself once that is mended\n")
                break
    return rotation


def _standing(one: admin_pb2.MasterKey) -> str:
    if one.sealing:
        return "seals"
    if one.needed:
        return "still needed"
    return "may go" if one.HasField("retire_time") else "next"


def _told(rotation: admin_pb2.KeyRotation) -> str:
    words = [
        f"to {rotation.target_master_key_id}: {_PHASES.get(rotation.phase, NONE)}",
        f"{rotation.done_count} of {rotation.tenant_count} tenants{_rate(rotation)}",
        f"{rotation.rewrapped_count} keys rewrapped",
    ]
    if rotation.damaged_count:
        words.append(f"{rotation.damaged_count} damaged (see the log of the context store)")
    if rotation.stale_copy_count:
        words.append(
            f"{rotation.stale_copy_count} copies of keys that Redis has lost (`webhook-cli restore`)"
        )
    if rotation.trouble:
        words.append(rotation.trouble)
    return "; ".join(words)


def _rate(rotation: admin_pb2.KeyRotation) -> str:
    return f" (at most {rotation.max_per_second} a second)" if rotation.max_per_second else ""
