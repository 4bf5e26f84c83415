"""`webhook-cli erase`: forget a context, a subject or a tenant everywhere, and prove it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_admin_service_pb2_grpc
from webhook.erasure.v1.erasure_pb2 import Place
from webhook_context.erasing.certificate import NotGenuine, is_about, verified

from webhook_ops.cli.door import Door, Json, Refused, Tenant, call
from webhook_ops.cli.failures import Exit, fail, fail_with
from webhook_ops.cli.paging import Limit, PageToken, print_page
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be erased.")]
Kept = Annotated[
    Path | None, typer.Option("--certificate", help="Write the signed certificate into this file.")
]

_LONGEST_S = 7 * 24 * 3600.0
_INCOMPLETE = "ERASURE_INCOMPLETE"
_KEY_BYTES = 32
_SCOPES = {1: ("tenant",), 2: ("context", "subject")}


@app.callback()
def erase() -> None:
    """Forget everywhere: in every tier, index, queue, dead letter, archive and cache.

    Interrupted or incomplete? Give the same command again: it goes on, and finds what is left. The
    certificate says what was done, place by place, and nothing of what it was about.
    """


@app.command()
def context(
    ctx: typer.Context,
    context_id: Annotated[str, typer.Argument(help="github:octo/hello:issue:1", metavar="CONTEXT_ID")],
    *,
    tenant: Tenant = "",
    dry_run: DryRun = False,
    certificate: Kept = None,
    as_json: Json = False,
) -> None:
    """Forget one context, and every event that is about nothing else. It takes no more events, ever.

    Needs an operator's key. Exit code 1: something is left; the places say why.

    Examples:
    - `webhook-cli erase context github:octo/hello:issue:1 --dry-run`

    - `webhook-cli erase context github:octo/hello:issue:1 --certificate issue-1.json`
    """
    request = admin_pb2.EraseRequest(tenant=tenant, context_id=context_id, dry_run=dry_run)
    _carry_out(ctx, request, certificate, as_json=as_json)


@app.command()
def subject(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="octocat, mona@example.com, 'Mona Lisa'", metavar="NAME")],
    *,
    tenant: Tenant = "",
    dry_run: DryRun = False,
    certificate: Kept = None,
    as_json: Json = False,
) -> None:
    """Forget somebody: every event that is by them or names them, and what was made of it.

    Names are compared as whole words, in any case. Contexts keep what others said in them; look at a dry
    run first: a name that is also a word takes everything with that word. Needs an operator's key. Exit
    code 1: something is left; the places say why.

    Examples:
    - `webhook-cli erase subject octocat --dry-run`

    - `webhook-cli erase subject mona@example.com --tenant acme --certificate mona.json`
    """
    request = admin_pb2.EraseRequest(tenant=tenant, subject=name, dry_run=dry_run)
    _carry_out(ctx, request, certificate, as_json=as_json)


@app.command()
def tenant(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="acme", metavar="TENANT")],
    *,
    yes: Annotated[
        str, typer.Option("--yes", help="The tenant's name once more, instead of typing it.")
    ] = "",
    dry_run: DryRun = False,
    certificate: Kept = None,
    as_json: Json = False,
) -> None:
    """Forget all that a tenant has, its keys first. There is no way back, and it can send nothing more.

    Needs an operator's key that covers the tenant. Exit code 1: something is left; the places say why.

    Examples:
    - `webhook-cli erase tenant acme --dry-run`

    - `webhook-cli erase tenant acme --yes acme --certificate acme.json --json`
    """
    if not dry_run:
        said = yes or typer.prompt(f"This can't be undone. Type {name!r} to go on", err=True)
        if said != name:
            fail(
                "that is not its name: nothing was erased",
                Exit.USAGE,
                reason="NOT_CONFIRMED",
                as_json=as_json,
            )
    request = admin_pb2.EraseRequest(tenant=name, whole_tenant=True, dry_run=dry_run)
    _carry_out(ctx, request, certificate, as_json=as_json)


@app.command()
def verify(
    ctx: typer.Context,
    certificate: Annotated[Path, typer.Argument(help="The file; - for standard input.", metavar="CERT")],
    *,
    key: Annotated[
        str, typer.Option("--key", help="The public key to trust, in hex; else the system is asked for it.")
    ] = "",
    about: Annotated[
        str, typer.Option("--about", help="Also check what it is about: TENANT or TENANT/WHAT.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check that a certificate is genuine, and show what it says. Needs no network with `--key`.

    Exit code 1: it is not genuine, or it is about something else.

    Examples:
    - `webhook-cli erase verify mona.json`

    - `webhook-cli erase verify mona.json --key "$(webhook-cli erase key)" --about acme/octocat --json`
    """
    try:
        content = sys.stdin.buffer.read() if str(certificate) == "-" else certificate.read_bytes()
    except OSError as error:
        fail(f"{certificate}: {error.strerror}", Exit.USAGE, reason="FILE_UNREADABLE", as_json=as_json)
    try:
        statement = verified(content, _trusted(ctx, key, as_json=as_json))
    except NotGenuine as error:
        fail(str(error), Exit.FAILED, reason="NOT_GENUINE", as_json=as_json)
    if about and not _is_about(statement, about):
        fail("genuine, and about something else", Exit.FAILED, reason="ABOUT_ANOTHER", as_json=as_json)
    if as_json:
        print_json(statement)
        return
    places = [
        Place(
            name=one["place"],
            found_count=one["found"],
            erased_count=one["erased"],
            left_count=one["left"],
            reason=one["reason"],
        )
        for one in statement["places"]
    ]
    console().print(_table(places))
    begin, end = statement["begin_time"], statement["end_time"]
    whole = "complete" if statement["complete"] else "not complete"
    console().print(text(f"genuine: a {statement['scope']}, {whole}; asked for {begin}, ended {end}"))


@app.command("list")
def list_erasures(
    ctx: typer.Context,
    *,
    tenant: Tenant = "",
    limit: Limit = 50,
    page_token: PageToken = "",
    as_json: Json = False,
) -> None:
    """Erasures that were begun, the latest first; `--json` shows their certificates.

    Examples:
    - `webhook-cli erase list`
    """
    request = admin_pb2.ListErasuresRequest(tenant=tenant, page_size=limit, page_token=page_token)

    async def work(door: Door) -> admin_pb2.ListErasuresResponse:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            response: admin_pb2.ListErasuresResponse = await stub.ListErasures(request)
            return response

    page = call(ctx, work, as_json=as_json)
    rows = [
        (
            one.erasure_id,
            one.tenant,
            one.scope,
            moment(one.begin_time),
            moment(one.end_time) if one.HasField("end_time") else NONE,
            "yes" if one.complete else "no: run it again",
        )
        for one in page.erasures
    ]
    columns = ("erasure", "tenant", "of a", "asked for", "ended", "complete")
    print_page(page, rows, columns, nothing="Nothing was ever to be erased.", as_json=as_json)


@app.command("key")
def show_key(ctx: typer.Context, *, as_json: Json = False) -> None:
    """The public key that verifies certificates, in hex. Keep it where you keep certificates.

    Examples:
    - `webhook-cli erase key`
    """
    key = _asked_for_key(ctx, as_json=as_json).hex()
    if as_json:
        print_json({"algorithm": "ed25519", "public_key": key})
    else:
        sys.stdout.write(f"{key}\n")


def _carry_out(
    ctx: typer.Context, request: admin_pb2.EraseRequest, kept: Path | None, *, as_json: bool
) -> None:
    whole = admin_pb2.EraseResponse()
    places: dict[str, Place] = {}
    refused: list[Refused] = []

    async def work(door: Door) -> None:
        try:
            await _follow(door, request, whole, places, quiet=as_json)
        except Refused as error:
            if error.error.reason != _INCOMPLETE:
                raise
            # What was done is told first.
            refused.append(error)

    try:
        call(ctx, work, as_json=as_json)
    finally:
        if places and not whole.done and not request.dry_run:
            sys.stderr.write("not finished; the same command goes on\n")
    whole.places.extend(places[name] for name in sorted(places))
    if kept is not None and whole.certificate_json:
        kept.write_text(whole.certificate_json + "\n", encoding="utf-8")
    if as_json:
        print_json(to_plain(whole))
    else:
        _show(whole, kept, dry_run=request.dry_run)
    if refused:
        failure = refused[0]
        if as_json:
            fail_with(failure.error, service=failure.service, as_json=True)
        sys.stderr.write("error: not everything is erased: the table says why; the same command goes on\n")
        raise typer.Exit(int(Exit.FAILED))


async def _follow(
    door: Door,
    request: admin_pb2.EraseRequest,
    whole: admin_pb2.EraseResponse,
    places: dict[str, Place],
    *,
    quiet: bool,
) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True, disable=quiet) as progress:
        task = progress.add_task("looking")
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            async for told in stub.Erase(request, timeout=_LONGEST_S):
                places.update({place.name: place for place in told.places})
                whole.erasure_id, whole.done = told.erasure_id, told.done
                whole.certificate_json = told.certificate_json
                count = sum(place.found_count for place in places.values())
                progress.update(task, description=f"{told.step}: {count:,} found")


def _show(whole: admin_pb2.EraseResponse, kept: Path | None, *, dry_run: bool) -> None:
    out = console()
    out.print(_table(whole.places))
    if dry_run:
        out.print("Nothing was erased; this is what would be.")
    elif kept is not None:
        out.print(text(f"certificate: {kept}"))
    elif whole.certificate_json:
        sys.stdout.write(whole.certificate_json + "\n")


def _table(places: Any) -> Any:
    rows = [
        (
            place.name,
            f"{place.found_count:,}",
            f"{place.erased_count:,}",
            f"{place.left_count:,}" if place.left_count else NONE,
            place.reason or NONE,
        )
        for place in places
    ]
    return table(("place", "found", "erased", "left", "why"), rows)


def _trusted(ctx: typer.Context, key: str, *, as_json: bool) -> bytes:
    if not key:
        return _asked_for_key(ctx, as_json=as_json)
    try:
        trusted = bytes.fromhex(key.strip())
    except ValueError:
        trusted = b""
    if len(trusted) != _KEY_BYTES:
        fail("--key is 64 hex digits", Exit.USAGE, reason="KEY_INVALID", as_json=as_json)
    return trusted


def _asked_for_key(ctx: typer.Context, *, as_json: bool) -> bytes:
    async def work(door: Door) -> bytes:
        async with door.open("context") as channel:
            stub = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            return bytes((await stub.GetErasureKey(admin_pb2.GetErasureKeyRequest())).public_key)

    return call(ctx, work, as_json=as_json)


def _is_about(statement: dict[str, Any], about: str) -> bool:
    tenant_name, slash, what = about.partition("/")
    asked = (tenant_name, what) if slash else (tenant_name,)
    return any(is_about(statement, scope, asked) for scope in _SCOPES[len(asked)])
