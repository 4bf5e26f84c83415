"""`webhook-cli audit`: what is on record, and whether anybody has touched it."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc
from webhook.security.v1.audit_pb2 import AuditEntry, AuditFindingKind, AuditRecord

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import console, moment, print_json, table, text, to_plain

app = typer.Typer(no_args_is_help=True, help="Read the audit chain; find out whether it was touched.")

FOLLOW_S = 365 * 86400.0
_KIND = "AUDIT_FINDING_KIND_"

_File = Annotated[Path | None, typer.Option("--file", help="An exported file instead of the running system.")]


@app.command()
def verify(
    ctx: typer.Context,
    *,
    file: _File = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="With --file: whether the running chain still goes on from it, too."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every link of the chain and the seal of its head; exit code 1 names what was touched.

    Examples:
    - `webhook-cli audit verify`

    - `webhook-cli audit verify --file audit.jsonl --live`
    """
    if file is not None:
        _verify_file(ctx, file, live=live, as_json=as_json)
        return

    async def work(door: Door) -> security_admin_service_pb2.VerifyAuditResponse:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            return await stub.VerifyAudit(
                security_admin_service_pb2.VerifyAuditRequest(), timeout=max(door.timeout_s, 120)
            )

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json({**to_plain(found), "head_hash": found.head_hash.hex()})
    else:
        out = console()
        out.print(
            text(
                f"{found.entries} entries, {found.first_sequence} to {found.last_sequence}; "
                f"hash of the last: {found.head_hash.hex()}"
            )
        )
        if found.lost_records:
            out.print(text(f"{found.lost_records} records could not be kept while the store was away."))
        if found.intact:
            out.print("The chain is intact.")
        rows = [
            (AuditFindingKind.Name(each.kind).removeprefix(_KIND), each.sequence, each.message)
            for each in found.findings
        ]
        if rows:
            out.print(table(("finding", "at", "what"), rows))
    raise typer.Exit(int(Exit.OK if found.intact else Exit.FAILED))


@app.command()
def tail(
    ctx: typer.Context,
    *,
    last: Annotated[int, typer.Option("--last", min=0, help="How many entries back to begin.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends.")
    ] = False,
    resume_token: Annotated[str, typer.Option("--resume-token", help="Go on behind this entry.")] = "",
    as_json: Json = False,
) -> None:
    """Show the end of the chain. With --json: one object per line.

    Example: `webhook-cli audit tail -f`
    """
    request = security_admin_service_pb2.TailAuditRequest(last=last, follow=follow, resume_token=resume_token)

    async def work(door: Door) -> None:
        async for entry in _entries(door, request):
            if as_json:
                sys.stdout.write(orjson.dumps(_line(entry)).decode() + "\n")
            else:
                console().print(text(_sentence(entry)))
            sys.stdout.flush()

    try:
        call(ctx, work, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(int(Exit.OK)) from None


@app.command()
def export(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON, an entry per line; must not exist.")],
    trim: Annotated[
        bool, typer.Option("--trim", help="Then let go of what was exported, but for the last entry.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the chain into a file that `audit verify --file` can check without the system.

    Example: `webhook-cli audit export audit-2026-11.jsonl --trim`
    """

    async def work(door: Door) -> tuple[int, int]:
        count, entry, trimmed = 0, AuditEntry(), 0
        before = entry
        with file.open("xb") as out:
            async for found in _entries(door, security_admin_service_pb2.TailAuditRequest()):
                out.write(orjson.dumps(_line(found)) + b"\n")
                before, entry, count = entry, found, count + 1
        if trim and before.sequence:
            async with door.open("security") as channel:
                stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
                request = security_admin_service_pb2.TrimAuditRequest(
                    through_sequence=before.sequence, hash=before.hash
                )
                trimmed = (await stub.TrimAudit(request)).trimmed
        return count, trimmed

    try:
        count, trimmed = call(ctx, work, as_json=as_json)
    except OSError as error:
        fail(f"{file}: {error.strerror}", Exit.FAILED, reason="FILE_NOT_WRITTEN", as_json=as_json)
    if as_json:
        print_json({"exported": count, "trimmed": trimmed, "file": str(file)})
    else:
        console().print(text(f"{count} entries in {file}, {trimmed} let go of."))


async def _entries(
    door: Door, request: security_admin_service_pb2.TailAuditRequest
) -> AsyncIterator[AuditEntry]:
    async with door.open("security") as channel:
        stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
        async for response in stub.TailAudit(request, timeout=FOLLOW_S):
            yield response.entry


def _line(entry: AuditEntry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "previous_hash": entry.previous_hash.hex(),
        "hash": entry.hash.hex(),
        "record": _record(entry),
        # What was hashed, byte for byte; the record above is only its translation.
        "content": base64.b64encode(entry.content).decode(),
    }


def _record(entry: AuditEntry) -> dict[str, Any]:
    return {field: value for field, value in to_plain(entry.record).items() if value not in (None, "", 0)}


def _sentence(entry: AuditEntry) -> str:
    record = entry.record
    fact = record.WhichOneof("fact") or "unreadable"
    told = to_plain(getattr(record, fact)) if fact != "unreadable" else {}
    facts = "  ".join(f"{name}={_plain(value)}" for name, value in told.items() if value)
    tenant = f"[{record.tenant}] " if record.tenant else ""
    return f"{entry.sequence:>8}  {moment(record.time)}  {tenant}{fact}  {facts}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return "base64:" + value["base64"] if set(value) == {"base64"} else orjson.dumps(value).decode()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _verify_file(ctx: typer.Context, file: Path, *, live: bool, as_json: bool) -> None:
    try:
        lines = [orjson.loads(line) for line in file.read_bytes().splitlines() if line]
        findings = list(_findings(lines))
    except OSError as error:
        fail(f"{file}: {error.strerror}", Exit.FAILED, reason="FILE_NOT_READ", as_json=as_json)
    except (ValueError, KeyError, TypeError):
        fail(f"{file}: not an export of ours", Exit.FAILED, reason="FILE_INVALID", as_json=as_json)
    if live and lines:
        findings += call(ctx, lambda door: _differences(door, lines[-1]), as_json=as_json)
    if as_json:
        print_json({"intact": not findings, "entries": len(lines), "findings": findings})
    else:
        out = console()
        out.print(text(f"{len(lines)} entries in {file}."))
        for finding in findings or ["The chain is intact."]:
            out.print(text(finding))
    raise typer.Exit(int(Exit.FAILED if findings else Exit.OK))


async def _differences(door: Door, last: dict[str, Any]) -> list[str]:
    """Whether the running chain has the last exported entry where it was."""
    sequence = last["sequence"]
    request = security_admin_service_pb2.TailAuditRequest(resume_token=str(sequence - 1))
    async for entry in _entries(door, request):
        if entry.sequence == sequence and entry.hash.hex() == last["hash"]:
            return []
        break
    return [f"the running chain does not have {sequence} as it was exported"]


def _findings(lines: Iterable[dict[str, Any]]) -> Iterable[str]:
    """What is wrong with exported entries, as the hashes tell."""
    last_sequence, last_hash = None, ""
    for line in lines:
        sequence, previous = line["sequence"], line["previous_hash"]
        content = base64.b64decode(line["content"], validate=True)
        hashed = bytes.fromhex(previous) + sequence.to_bytes(8, "big") + content
        if hashlib.sha256(hashed).hexdigest() != line["hash"]:
            yield f"{sequence} was changed"
        elif _record(AuditEntry(record=AuditRecord.FromString(content))) != line["record"]:
            yield f"{sequence} does not say what was hashed"
        if last_sequence is not None and sequence != last_sequence + 1:
            yield f"{last_sequence + 1} should stand where {sequence} stands"
        elif last_sequence is not None and previous != last_hash:
            yield f"{sequence} does not follow from {last_sequence}: one of the two was replaced"
        last_sequence, last_hash = sequence, line["hash"]
