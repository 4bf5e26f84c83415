"""`python -m webhook_ops.demo`: the whole way of an event, to be watched.

Runs beside a system that `make run` has started, or starts one of its own in a temporary directory. Sends
signed webhooks of five tools, follows each until it is part of an enriched context, then shows one context,
a search by meaning, a refused forgery and a recognised duplicate. Ends with 1 if anything is not as it
should be.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from secrets import randbelow

import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from webhook.context.v1 import context_pb2, context_service_pb2, context_service_pb2_grpc

from webhook_ops.addresses import Addresses, default_var
from webhook_ops.cli.contexts import card, gist, search_contexts
from webhook_ops.cli.door import Door, Refused, door
from webhook_ops.cli.render import console, table, text
from webhook_ops.delivery import DEFAULT_TENANT, Answer, Delivery, route, send
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.secrets import kept_secrets, secret_variable
from webhook_ops.dev.system import running_system
from webhook_ops.health import Health, grpc_health, http_health
from webhook_ops.samples.catalogue import SAMPLES, Sample, sample, vary
from webhook_ops.trust import trust

TOOLS = ("slack", "jira", "github", "gitlab", "acme-deploy")
#: No word of it stands in a payload, so only its meaning can find anything.
QUESTION = "passengers handed identical places aboard"
#: What it means, as the samples put it, and which of them say so.
_PROBLEM = b"Two travellers can book the same seat"
_REPORTS = frozenset({"slack/message", "jira/issue_created", "github/issues_opened"})

ENRICHED_WITHIN_S = 40.0
_POLL_S = 0.25
_CALL_S = 5.0
_UP_WITHIN_S = 30.0
#: So many that two demos beside one system tell different ones.
_STORIES = 1_000_000
_WIDEST = 120
#: The clocks of one machine agree better than this.
_CLOCK_MARGIN_S = 1.0


class Wrong(Exception):
    """Something is not as it should be."""


@dataclass
class Followed:
    """One webhook on its way.

    Attributes:
        sample: What happened.
        delivery: What was sent.
        event_id: What the edge called it.
        context: What it became part of, once that is readable.
    """

    sample: Sample
    delivery: Delivery
    event_id: str = ""
    context: context_pb2.Context | None = None

    @property
    def enriched(self) -> bool:
        """Whether intelligence has seen all of its context."""
        found = self.context
        return found is not None and found.enrichment.covered_event_count >= found.event_count > 0


async def demonstrate(way_in: Door, secrets: Mapping[str, str], story: int, out: Console) -> None:
    """Everything, in order.

    Args:
        way_in: The system.
        secrets: The tools' secrets, by environment variable.
        story: Which variation of the samples to send.
        out: Where to show it.

    Raises:
        Wrong: Something is not as it should be.
    """
    followed = [
        Followed(each, Delivery(each.tool, each.type, vary(each, story)))
        for each in SAMPLES
        if each.tool in TOOLS and each.name != "url_verification"
    ]
    since = Timestamp()
    since.FromMicroseconds(int((time.time() - _CLOCK_MARGIN_S) * 1_000_000))
    ours = context_service_pb2.ContextFilter(updated_after=since)
    out.rule("1. Signed webhooks become contexts", align="left")
    async with httpx.AsyncClient(timeout=_CALL_S, verify=trust(way_in.tls)) as client:
        await _send_all(client, way_in, secrets, followed)
        await _follow(way_in, followed, ours, out)
        _show_what_became(followed, out)

        out.rule("2. One of them", align="left")
        out.print(card(_most_eventful(followed)), width=out.width)

        out.rule("3. Found by meaning", align="left")
        await _search(way_in, followed, ours, out)

        out.rule("4. A forgery is refused", align="left")
        _show_forgery(await _forge(client, way_in, followed[0]), out)

        out.rule("5. A duplicate is recognised", align="left")
        await _repeat(client, way_in, secrets, followed[0], out)


async def _send_all(
    client: httpx.AsyncClient, way_in: Door, secrets: Mapping[str, str], followed: Sequence[Followed]
) -> None:
    for each in followed:
        answer = await _sent(client, way_in, secrets, each.delivery)
        if not answer.accepted or answer.duplicate or not answer.event_id:
            raise Wrong(f"{each.sample.file} was answered {answer.status}: {answer.text}")
        each.event_id = answer.event_id


async def _sent(
    client: httpx.AsyncClient, way_in: Door, secrets: Mapping[str, str], delivery: Delivery
) -> Answer:
    variable = secret_variable(delivery.tool)
    if not secrets.get(variable):
        raise Wrong(f"the secret of {delivery.tool} is not known here: set {variable}")
    return await send(client, route(way_in.http, delivery.tool), delivery, secrets[variable])


async def _follow(
    way_in: Door, followed: Sequence[Followed], ours: context_service_pb2.ContextFilter, out: Console
) -> None:
    """Poll until each event is part of an enriched context."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    deadline = time.monotonic() + ENRICHED_WITHIN_S
    with Progress(*columns, console=out) as progress:
        bars = {
            id(each): progress.add_task(f"{each.sample.tool:<12} {each.sample.description}", total=2)
            for each in followed
        }
        while not all(each.enriched for each in followed):
            if time.monotonic() > deadline:
                missing = ", ".join(each.sample.file for each in followed if not each.enriched)
                raise Wrong(f"not enriched within {ENRICHED_WITHIN_S:g} s: {missing}")
            await asyncio.sleep(_POLL_S)
            await _look(way_in, followed, ours)
            for each in followed:
                progress.update(bars[id(each)], completed=(each.context is not None) + each.enriched)


async def _look(way_in: Door, followed: Sequence[Followed], ours: context_service_pb2.ContextFilter) -> None:
    """Find the context of each event among those that have changed since."""
    async with way_in.open("context") as channel:
        stub = context_service_pb2_grpc.ContextServiceStub(channel)
        page = await stub.ListContexts(
            context_service_pb2.ListContextsRequest(tenant=DEFAULT_TENANT, page_size=100, filter=ours)
        )
        ids = [context.context_id for context in page.contexts]
        if not ids:
            return
        read = await stub.BatchGetContexts(
            context_service_pb2.BatchGetContextsRequest(context_ids=ids, tenant=DEFAULT_TENANT, max_events=50)
        )
    by_event = {event.event_id: result.context for result in read.results for event in result.context.events}
    for each in followed:
        each.context = by_event.get(each.event_id, each.context)


def _show_what_became(followed: Sequence[Followed], out: Console) -> None:
    rows = [
        (
            each.sample.tool,
            each.sample.type,
            each.context.context_id,
            f"{each.context.enrichment.importance:.2f}",
        )
        for each in followed
        if each.context is not None
    ]
    out.print(table(("tool", "type", "context", "importance"), rows))


def _most_eventful(followed: Sequence[Followed]) -> context_pb2.Context:
    contexts = [each.context for each in followed if each.context is not None]
    best = max(contexts, key=lambda context: (len(context.links), context.event_count))
    if not best.enrichment.summary or not best.enrichment.entities:
        raise Wrong(f"{best.context_id} has no summary or no entities")
    return best


async def _search(
    way_in: Door, followed: Sequence[Followed], ours: context_service_pb2.ContextFilter, out: Console
) -> None:
    found = await search_contexts(way_in, QUESTION, limit=4, only=ours)
    rows = [(f"{match.similarity:.2f}", match.context.context_id, gist(match)) for match in found.matches]
    out.print(text(f"Question: {QUESTION}"))
    out.print(table(("similarity", "context", "which says"), rows))
    reports = {
        each.context.context_id
        for each in followed
        if each.context is not None and f"{each.sample.tool}/{each.sample.name}" in _REPORTS
    }
    if not found.matches or found.matches[0].context.context_id not in reports:
        raise Wrong("the search did not find the double booking first")


async def _forge(client: httpx.AsyncClient, way_in: Door, genuine: Followed) -> Answer:
    forged = Delivery(genuine.delivery.tool, genuine.delivery.event_type, genuine.delivery.body)
    return await send(client, route(way_in.http, forged.tool), forged, "not the secret")


def _show_forgery(answer: Answer, out: Console) -> None:
    out.print(text(f"signed with another secret: {answer.status} {answer.text}"))
    if answer.status != HTTPStatus.UNAUTHORIZED:
        raise Wrong(f"a forgery was answered {answer.status}")


async def _repeat(
    client: httpx.AsyncClient, way_in: Door, secrets: Mapping[str, str], first: Followed, out: Console
) -> None:
    answer = await _sent(client, way_in, secrets, first.delivery)
    out.print(text(f"delivered once more: {answer.status} {answer.text}"))
    if not (answer.accepted and answer.duplicate and answer.event_id == first.event_id):
        raise Wrong("a duplicate was not recognised")


@asynccontextmanager
async def _system(out: Console) -> AsyncIterator[tuple[Door, Mapping[str, str], int]]:
    """A way into a system, its secrets, and which story to tell there."""
    var = default_var(os.environ)
    if Addresses.read(var) is not None:
        out.print(text(f"Beside the system that runs on {var}."))
        way_in = _door(var)
        await _up(way_in)
        yield way_in, {**kept_secrets(var), **os.environ}, new_story(randbelow(_STORIES))
        return
    with tempfile.TemporaryDirectory(prefix="webhook-demo-") as directory:
        out.print(text("No system runs here: starting one in a temporary directory."))
        async with running_system(Path(directory), free_ports=True) as system:
            yield _door(system.var), system.secrets, 0


async def _up(way_in: Door) -> None:
    """Wait for a system that is being started."""
    deadline = time.monotonic() + _UP_WITHIN_S
    while True:
        states = await asyncio.gather(
            http_health(way_in.http, tls=way_in.tls),
            *(grpc_health(address, tls=way_in.tls) for address in way_in.services.values()),
        )
        if all(state is Health.SERVING for state in states):
            return
        if time.monotonic() > deadline:
            raise Wrong("the system that runs is not well: `webhook-cli status` shows more")
        await asyncio.sleep(_POLL_S)


def new_story(start: int) -> int:
    """The next variation of the samples, from this one on, that tells of the same problem as the first."""
    report = sample("github", "issues_opened")
    return next(n for n in itertools.count(start) if _PROBLEM in vary(report, n))


def _door(var: Path) -> Door:
    return door(var=var, api_key="", timeout_s=_CALL_S)


async def _main(out: Console) -> None:
    async with _system(out) as (way_in, secrets, story):
        await demonstrate(way_in, secrets, story, out)


def main() -> None:
    """Run the demo; exit code 0 if all is as it should be."""
    out = console()
    out.width = min(out.width, _WIDEST)
    begun = time.monotonic()
    try:
        asyncio.run(_main(out))
    except (Wrong, StartError, httpx.HTTPError) as error:
        out.print(text(f"demo failed: {error or type(error).__name__}", "bold red"))
        sys.exit(1)
    except Refused as refused:
        out.print(text(f"demo failed: {refused.service}: {refused.error}", "bold red"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    out.print(text(f"All as it should be, in {time.monotonic() - begun:.0f} s.", "bold green"))


if __name__ == "__main__":
    main()
