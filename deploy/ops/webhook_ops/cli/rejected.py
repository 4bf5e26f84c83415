"""`webhook-cli rejected`: deliveries that were not let in, and letting them in after all."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer
from webhook.ingest.v1 import ingest_admin_service_pb2, ingest_admin_service_pb2_grpc
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc
from webhook.security.v1.admission_pb2 import REFUSAL_UNSPECIFIED, Refusal
from webhook.security.v1.rejection_pb2 import Rejection

from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.paging import Limit, PageToken, pages, print_way_on
from webhook_ops.cli.render import console, moment, print_json, table, text, to_plain
from webhook_ops.cli.since import Since, since

app = typer.Typer(no_args_is_help=True, help="Look at deliveries that were refused; let them in after all.")

_AT_ONCE = 64
"""How many one call retries."""
_PREFIX = "REFUSAL_"
_CAUSES = [name.removeprefix(_PREFIX) for name, number in Refusal.items() if number]

Tool = Annotated[str, typer.Option("--tool", help="Only of this tool.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Only of this tenant.")]


def _cause(value: str) -> str:
    if value and value.upper() not in _CAUSES:
        raise typer.BadParameter(f"one of {', '.join(_CAUSES)}")
    return value.upper()


Cause = Annotated[str, typer.Option("--cause", callback=_cause, help="Only these: SIGNATURE_INVALID...")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tool: Tool = "",
    tenant: Tenant = "",
    cause: Cause = "",
    not_before: Since = "",
    limit: Limit = 50,
    page_token: PageToken = "",
    as_json: Json = False,
) -> None:
    """List refused deliveries, newest first. Of a flood a sample is kept; metrics count all.

    Example: `webhook-cli rejected list --tool github --since 2h`
    """
    request = _request(tool, tenant, cause, not_before, limit)
    request.page_token = page_token
    page = call(ctx, lambda door: _page(door, request), as_json=as_json)
    if as_json:
        print_json(to_plain(page))
        return
    out = console()
    if not page.rejections:
        out.print("Nothing was refused.")
        return
    rows = [
        (
            each.rejection_id,
            each.tool,
            _name(each),
            each.peer_address,
            moment(each.received_time),
            each.body_bytes,
            _state(each),
        )
        for each in page.rejections
    ]
    out.print(table(("id", "tool", "cause", "from", "received", "bytes", "retry"), rows))
    print_way_on(out, page)


@app.command()
def show(
    ctx: typer.Context,
    *,
    rejection_id: Annotated[str, typer.Argument(metavar="ID", help="From the list.")],
    payload: Annotated[
        bool, typer.Option("--payload", help="With the body as received; goes on record.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show one refused delivery.

    Example: `webhook-cli rejected show 019f0c1e-8c1d-7f3a-9a55-0d4a4f1f9d10 --payload`
    """
    request = security_admin_service_pb2.GetRejectionRequest(
        rejection_id=rejection_id, include_payload=payload
    )

    async def work(door: Door) -> security_admin_service_pb2.GetRejectionResponse:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            return await stub.GetRejection(request)

    answer = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(answer))
        return
    out = console()
    out.print(table(("field", "value"), [(k, v) for k, v in to_plain(answer.rejection).items() if v]))
    if answer.payload:
        out.print()
        out.print(text(answer.payload.decode("utf-8", "replace")))


@app.command()
def retry(
    ctx: typer.Context,
    *,
    rejection_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Which; or choose by the options.")
    ] = None,
    tool: Tool = "",
    tenant: Tenant = "",
    cause: Cause = "",
    not_before: Since = "",
    everything: Annotated[bool, typer.Option("--all", help="All that can be tried.")] = False,
    nonce: Annotated[
        str,
        typer.Option(
            "--nonce",
            help="A word of yours: let it in even if its sender delivered it since, once for each word.",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Judge refused deliveries again, after the secret or the source was mended; what is believed comes in.

    Signed times are held against the time at which a delivery came. To try twice does no harm: what came in
    by another way since is a duplicate, unless a nonce says that it is wanted all the same.

    Examples:
    - `webhook-cli rejected retry 019f0c1e-8c1d-7f3a-9a55-0d4a4f1f9d10`

    - `webhook-cli rejected retry --tool github --cause SIGNATURE_INVALID --since 2h`

    - `webhook-cli rejected retry 019f0c1e-8c1d-7f3a-9a55-0d4a4f1f9d10 --nonce incident-1234`
    """
    if not (rejection_ids or tool or tenant or cause or not_before or everything):
        fail(
            "say which",
            Exit.USAGE,
            reason="NOTHING_CHOSEN",
            hint="give ids, or --tool, --tenant, --cause, --since, or --all",
            as_json=as_json,
        )

    async def work(door: Door) -> list[ingest_admin_service_pb2.RetryResult]:
        ids = rejection_ids or await _chosen(door, _request(tool, tenant, cause, not_before, 1000))
        return await _retried(door, list(dict.fromkeys(ids)), nonce)

    results = call(ctx, work, as_json=as_json)
    refused = [result for result in results if result.status.code]
    if as_json:
        print_json({"results": [to_plain(result) for result in results]})
    elif not results:
        console().print("There is nothing to try.")
    else:
        rows = [(result.rejection_id, *_outcome(result)) for result in results]
        console().print(table(("id", "outcome", "event", "why"), rows))
    raise typer.Exit(int(Exit.FAILED if refused else Exit.OK))


async def _chosen(door: Door, request: security_admin_service_pb2.ListRejectionsRequest) -> list[str]:
    request.retryable_only = True
    found = [each async for page in pages(partial(_page, door), request) for each in page.rejections]
    # The oldest first, as they came.
    return [each.rejection_id for each in reversed(found)]


async def _page(
    door: Door, request: security_admin_service_pb2.ListRejectionsRequest
) -> security_admin_service_pb2.ListRejectionsResponse:
    async with door.open("security") as channel:
        stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
        return await stub.ListRejections(request)


async def _retried(door: Door, ids: list[str], nonce: str) -> list[ingest_admin_service_pb2.RetryResult]:
    results: dict[str, ingest_admin_service_pb2.RetryResult] = {}
    left = ids
    async with door.open("gateway") as channel:
        stub = ingest_admin_service_pb2_grpc.IngestAdminServiceStub(channel)
        while left:
            request = ingest_admin_service_pb2.RetryRejectionsRequest(
                rejection_ids=left[:_AT_ONCE], nonce=nonce
            )
            answered = (await stub.RetryRejections(request)).results
            results |= {result.rejection_id: result for result in answered}
            # Large ones do not all fit into one call; at least the first of each does.
            again = [each.rejection_id for each in answered if each.status.reason == "BATCH_TOO_LARGE"]
            left = again + left[_AT_ONCE:]
    return [results[rejection_id] for rejection_id in ids]


def _request(
    tool: str, tenant: str, cause: str, not_before: str, size: int
) -> security_admin_service_pb2.ListRejectionsRequest:
    return security_admin_service_pb2.ListRejectionsRequest(
        tool=tool,
        tenant=tenant,
        cause=Refusal.Value(_PREFIX + cause) if cause else REFUSAL_UNSPECIFIED,
        since_time=since(not_before),
        page_size=size,
    )


def _name(rejection: Rejection) -> str:
    return Refusal.Name(rejection.cause).removeprefix(_PREFIX)


def _state(rejection: Rejection) -> str:
    if rejection.event_id:
        return "accepted"
    return "possible" if rejection.retryable else "-"


def _outcome(result: ingest_admin_service_pb2.RetryResult) -> tuple[str, str, str]:
    if result.status.code:
        return "refused", "-", result.cause or result.status.reason
    if result.duplicate:
        return "was there already", result.event_id, "-"
    return "quarantined" if result.quarantined else "accepted", result.event_id, "-"
