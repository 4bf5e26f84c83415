"""`webhook-cli send`: a webhook signed as its sender would."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.progress import Progress
from webhook_shared.rpc.tls import TlsProblem
from webhook_shared.settings import read_secret

from webhook_ops.cli.door import Door, Json, Tenant, door_of
from webhook_ops.cli.failures import NOTHING_RUNS_HINT, Exit, fail
from webhook_ops.cli.render import console, print_json, table
from webhook_ops.delivery import DEFAULT_TENANT, Answer, Delivery, route
from webhook_ops.delivery import send as deliver
from webhook_ops.dev.secrets import kept_secrets, secret_variable
from webhook_ops.samples.catalogue import SAMPLES, Sample, vary
from webhook_ops.samples.senders import Example, sender
from webhook_ops.samples.signing import example_body
from webhook_ops.trust import trust

#: Tools that have no samples of their own send those of this one: it signs generically, too.
_ANY_TOOL = "acme-deploy"
_IN_FLIGHT = 16
_SHOWN_ROWS = 20
_STANDARD_INPUT = Path("-")


def send(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Argument(help="A sender of the catalogue (github, stripe), or any other.")],
    event: Annotated[str, typer.Option("--event", help="The sender's event type; as the sample's.")] = "",
    sample: Annotated[str, typer.Option("--sample", help="Which sample; the tool's first.")] = "",
    payload: Annotated[
        Path | None,
        typer.Option("--payload", help="A file to send instead of a sample; - is standard input."),
    ] = None,
    url: Annotated[str, typer.Option("--url", help="Where to, whole; as the running system.")] = "",
    secret_ref: Annotated[
        str,
        typer.Option(
            "--secret-ref", help="env:NAME or file:PATH; else TOOL_WEBHOOK_SECRET, else var/secrets."
        ),
    ] = "",
    count: Annotated[int, typer.Option("--count", min=1, help="How many, each about another thing.")] = 1,
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Send a webhook, signed as the tool signs: a sample, or a small example where it has none.

    Exit code 0 where all were accepted (duplicates too), 1 where one was refused, 3 where nobody answers.
    Samples of GitHub and Jira say when they happened: sent once more they are duplicates, whatever their id.

    Examples:
    - `webhook-cli send github`

    - `webhook-cli send jira --sample issue_updated --count 50`

    - `webhook-cli send github --event push --payload push.json --url https://hooks.example.com/webhooks/github
      --secret-ref env:GITHUB_WEBHOOK_SECRET`
    """
    door = door_of(ctx)
    deliveries = _deliveries(tool, event, sample, payload, count, as_json=as_json)
    secret = _secret(tool, secret_ref, door, as_json=as_json)
    target = url or route(door.http, tool, tenant)
    try:
        answers = asyncio.run(_send_all(target, deliveries, secret, door))
    except httpx.HTTPError as error:
        fail(
            f"{target} does not answer ({type(error).__name__})",
            Exit.UNREACHABLE,
            reason="PEER_UNREACHABLE",
            hint=NOTHING_RUNS_HINT,
            as_json=as_json,
        )
    except TlsProblem as error:
        fail(str(error), Exit.FAILED, reason="TLS_UNUSABLE", as_json=as_json)
    except ValueError as error:
        fail(str(error), Exit.USAGE, reason="SECRET_INVALID", as_json=as_json)
    if as_json:
        rows = [_plain(*pair) for pair in zip(deliveries, answers, strict=True)]
        print_json({"url": target, "sent": rows})
    else:
        _print(target, deliveries, answers)
    sys.exit(Exit.OK if all(answer.accepted for answer in answers) else Exit.FAILED)


async def _send_all(url: str, deliveries: Sequence[Delivery], secret: str, door: Door) -> Sequence[Answer]:
    gate = asyncio.Semaphore(_IN_FLIGHT)
    shown = len(deliveries) > _SHOWN_ROWS and sys.stderr.isatty()
    async with httpx.AsyncClient(timeout=door.timeout_s, verify=trust(door.tls)) as client:
        with Progress(console=Console(stderr=True), transient=True, disable=not shown) as progress:
            bar = progress.add_task("sending", total=len(deliveries))

            async def one(delivery: Delivery) -> Answer:
                async with gate:
                    answer = await deliver(client, url, delivery, secret)
                progress.advance(bar)
                return answer

            return await asyncio.gather(*(one(delivery) for delivery in deliveries))


def _deliveries(
    tool: str, event: str, sample: str, payload: Path | None, count: int, *, as_json: bool
) -> list[Delivery]:
    if payload is not None:
        try:
            body = sys.stdin.buffer.read() if payload == _STANDARD_INPUT else payload.read_bytes()
        except OSError as error:
            fail(f"{payload}: {error.strerror}", Exit.USAGE, reason="PAYLOAD_UNREADABLE", as_json=as_json)
        return [Delivery(tool, event or _usual_type(tool), body) for _ in range(count)]
    example = sender(tool).example
    if example and not sample:
        return [_exemplary(tool, event or example.type, example) for _ in range(count)]
    chosen = _sample(tool, sample, as_json=as_json)
    return [Delivery(tool, event or chosen.type, vary(chosen, n)) for n in range(count)]


def _usual_type(tool: str) -> str:
    example = sender(tool).example
    return example.type if example else _samples(tool)[0].type


def _exemplary(tool: str, event: str, example: Example) -> Delivery:
    delivery_id = str(uuid.uuid4())
    body = example_body(example, event_type=event, delivery_id=delivery_id, now=time.time())
    return Delivery(tool, event, body, delivery_id)


def _samples(tool: str) -> list[Sample]:
    own = [each for each in SAMPLES if each.tool == tool]
    return own or [each for each in SAMPLES if each.tool == _ANY_TOOL]


def _sample(tool: str, name: str, *, as_json: bool) -> Sample:
    known = _samples(tool)
    chosen = next((each for each in known if name in {"", each.name}), None)
    if chosen is None:
        fail(
            f"{tool} has no sample {name}",
            Exit.USAGE,
            reason="SAMPLE_UNKNOWN",
            hint=f"one of {', '.join(each.name for each in known)}",
            as_json=as_json,
        )
    return chosen


def _secret(tool: str, reference: str, door: Door, *, as_json: bool) -> str:
    variable = secret_variable(tool)
    if reference:
        try:
            return read_secret(reference)
        except ValueError as error:
            fail(str(error), Exit.USAGE, reason="SECRET_UNREADABLE", as_json=as_json)
    secret = os.environ.get(variable) or kept_secrets(door.var).get(variable)
    if not secret:
        fail(
            f"the secret of {tool} is not known here",
            Exit.USAGE,
            reason="SECRET_UNKNOWN",
            hint=f"give it with --secret-ref env:NAME or file:PATH, or set {variable}",
            as_json=as_json,
        )
    return secret


def _plain(delivery: Delivery, answer: Answer) -> dict[str, Any]:
    return {
        "tool": delivery.tool,
        "event_type": delivery.event_type,
        "delivery_id": delivery.delivery_id,
        "status": answer.status,
        "event_id": answer.event_id,
        "duplicate": answer.duplicate,
        "answer": answer.text,
    }


def _print(url: str, deliveries: Sequence[Delivery], answers: Sequence[Answer]) -> None:
    out = console()
    rows = [
        (delivery.event_type, answer.status, _said(answer), answer.event_id or answer.text)
        for delivery, answer in zip(deliveries, answers, strict=True)
    ]
    out.print(table(("type", "status", "", "event"), rows[:_SHOWN_ROWS], title=url))
    if len(rows) > _SHOWN_ROWS:
        tally = Counter(f"{_said(answer)} with {answer.status}" for answer in answers)
        out.print(f"... {len(rows)} in all: " + ", ".join(f"{n} {said}" for said, n in tally.items()))


def _said(answer: Answer) -> str:
    if answer.duplicate:
        return "duplicate"
    return "accepted" if answer.accepted else "refused"
