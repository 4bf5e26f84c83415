"""`webhook.context.v1.ContextService`: messages in, messages out; the work is done elsewhere."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.context_service_pb2_grpc import ContextServiceServicer
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.errors import InvalidArgument, ResourceExhausted, ServiceError, item_status
from webhook_shared.rpc.identity import Caller, Role, caller

from webhook_context import errors, finding_messages, messages, metrics, page_tokens
from webhook_context.changes.watching import Watching
from webhook_context.domain.contexts import Appended, Context, Entry
from webhook_context.finding.listing import Listing
from webhook_context.finding.neighbors import Neighbors
from webhook_context.finding.search import Search
from webhook_context.finding.walks import LONGEST_WALK
from webhook_context.finding.windows import Windows
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import KEPT_REVISIONS, RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.uses import Uses
from webhook_context.writing.appending import Appending
from webhook_context.writing.rehearsal import Rehearsal
from webhook_context.writing.updating import Updating

MOST_APPENDS = 1000
MOST_GETS = 256
USUAL_EVENTS, MOST_EVENTS = 20, 1000
USUAL_PAGE, MOST_PAGE = 50, 500
USUAL_MATCHES, MOST_MATCHES = 10, 100
MOST_REVISIONS = KEPT_REVISIONS
LARGEST_PAYLOADS_BYTES = 48 * 2**20
"""Of one response; a message of 64 MiB is the most that a channel carries."""

_served = {tier: metrics.SERVED.labels(Tier.Name(tier)) for tier in Tier.values()}

_Call = grpc.aio.ServicerContext[Any, Any]


class ContextServicer(ContextServiceServicer):
    """Serves contexts to whoever the interceptors let through."""

    def __init__(
        self,
        *,
        store: RedisContexts,
        appending: Appending,
        updating: Updating,
        listing: Listing,
        search: Search,
        watching: Watching,
        tiers: RedisTiers,
        rise_reads: int,
        uses: Uses,
    ) -> None:
        self._store = store
        self._tiers = tiers
        self._rise_reads = rise_reads
        self._uses = uses
        self._appending = appending
        self._rehearsal = Rehearsal(store)
        self._updating = updating
        self._listing = listing
        self._search = search
        self._neighbors = Neighbors(store, search)
        self._windows = Windows(store, search)
        self._watching = watching

    async def AppendEvents(self, request: pb.AppendEventsRequest, context: _Call) -> pb.AppendEventsResponse:
        """Per item, so that one that is wrong never fails its neighbours."""
        _check_count("appends", len(request.appends), MOST_APPENDS)
        who = caller()
        checked = [_checked(who, append) for append in request.appends]
        entries = [one for one in checked if isinstance(one, Entry)]
        made = self._rehearsal.foresee(entries) if request.dry_run else self._appending.append(entries)
        results = iter(await made)
        if not request.dry_run:
            self._uses.changed((entry.tenant, entry.context_id) for entry in entries)
        return pb.AppendEventsResponse(
            results=[_result(next(results) if isinstance(one, Entry) else one) for one in checked]
        )

    async def GetContext(self, request: pb.GetContextRequest, context: _Call) -> pb.GetContextResponse:
        """One context."""
        tenant = caller().tenant(request.tenant)
        messages.context_id_faults(request.context_id)
        found = await self._store.read_one(tenant, request.context_id, _view(request))
        _check_size([found])
        await self._used(tenant, [found])
        response = pb.GetContextResponse(served_tier=found.served)
        messages.context(found, response.context)
        return response

    async def BatchGetContexts(
        self, request: pb.BatchGetContextsRequest, context: _Call
    ) -> pb.BatchGetContextsResponse:
        """Many contexts, each with a status of its own."""
        _check_count("context_ids", len(request.context_ids), MOST_GETS)
        tenant = caller().tenant(request.tenant)
        found = await self._store.read(tenant, request.context_ids, _view(request))
        _check_size([one for one in found if isinstance(one, Context)])
        await self._used(tenant, found)
        response = pb.BatchGetContextsResponse()
        for asked, one in zip(request.context_ids, found, strict=True):
            # Into its place at once: a message that is made elsewhere is copied there, payloads included.
            _get(response.results.add(), asked, one)
        return response

    async def ListContexts(self, request: pb.ListContextsRequest, context: _Call) -> pb.ListContextsResponse:
        """A page, the newest change first."""
        tenant = caller().tenant(request.tenant)
        size = _size(request.page_size, USUAL_PAGE, MOST_PAGE)
        page = await self._listing.page(tenant, messages.wanted(request.filter), size, request.page_token)
        return pb.ListContextsResponse(
            contexts=[messages.context(one) for one in page.contexts], next_page_token=page.next_token
        )

    async def SearchContexts(
        self, request: pb.SearchContextsRequest, context: _Call
    ) -> pb.SearchContextsResponse:
        """A page of matches, best first."""
        tenant = caller().tenant(request.tenant)
        query, wanted = messages.query(request), messages.wanted(request.filter)
        walk = finding_messages.walk(tenant, request)
        size = _size(request.page_size, USUAL_MATCHES, MOST_MATCHES)
        size = min(size, LONGEST_WALK - len(walk.shown))
        found = await self._search.search(tenant, query, wanted, len(walk.shown) + size + 1)
        hits = walk.unshown(found.hits)
        shown = hits[:size]
        contexts = await self._store.read(tenant, [hit.context_id for hit in shown], View())
        return pb.SearchContextsResponse(
            matches=[
                finding_messages.match(hit, one)
                for hit, one in zip(shown, contexts, strict=True)
                # What is gone or has moved since is no match.
                if isinstance(one, Context) and (not wanted.tiers or one.tier in wanted.tiers)
            ],
            next_page_token=walk.token(hit.context_id for hit in shown) if len(hits) > size else "",
            index_incomplete=found.incomplete,
            indexed_count=found.indexed,
            context_count=await self._store.count(tenant),
        )

    async def ListNeighbors(
        self, request: pb.ListNeighborsRequest, context: _Call
    ) -> pb.ListNeighborsResponse:
        """A page of links, outgoing before incoming."""
        tenant = caller().tenant(request.tenant)
        size = _size(request.page_size, USUAL_PAGE, MOST_PAGE)
        asked = finding_messages.asked_neighbors(tenant, request, size)
        return finding_messages.neighbors(await self._neighbors.of(asked, request.page_token))

    async def AssembleWindow(
        self, request: pb.AssembleWindowRequest, context: _Call
    ) -> pb.AssembleWindowResponse:
        """The best of a context, or for a question, within a budget."""
        asked = finding_messages.window_request(caller().tenant(request.tenant), request)
        made, incomplete = await self._windows.assemble(asked)
        return finding_messages.window(made, asked.limits, incomplete=incomplete)

    async def WatchContexts(
        self, request: pb.WatchContextsRequest, context: _Call
    ) -> AsyncGenerator[pb.WatchContextsResponse]:
        """Changes, at the pace of whoever reads them."""
        wish = finding_messages.wish(caller().tenant(request.tenant), request)
        async with aclosing(self._watching.follow(wish, request.resume_token)) as pages:
            async for page in pages:
                yield finding_messages.watched(page)

    async def UpdateContext(
        self, request: pb.UpdateContextRequest, context: _Call
    ) -> pb.UpdateContextResponse:
        """Compare and set."""
        tenant = caller().tenant(request.context.tenant)
        updated = await self._updating.update(messages.change(tenant, request))
        return pb.UpdateContextResponse(context=messages.context(updated))

    async def PatchContext(self, request: pb.PatchContextRequest, context: _Call) -> pb.PatchContextResponse:
        """Read, merge, compare and set, here."""
        tenant = caller().tenant(request.tenant)
        updated = await self._updating.update(messages.patch(tenant, request))
        return pb.PatchContextResponse(context=messages.context(updated))

    async def ListRevisions(
        self, request: pb.ListRevisionsRequest, context: _Call
    ) -> pb.ListRevisionsResponse:
        """All that are kept fit into one page."""
        tenant = caller().tenant(request.tenant)
        messages.context_id_faults(request.context_id)
        first = _offset(request.page_token)
        size = _size(request.page_size, MOST_REVISIONS, MOST_REVISIONS)
        kept = await self._store.revisions(tenant, request.context_id)
        more = len(kept) > first + size
        return pb.ListRevisionsResponse(
            revisions=kept[first : first + size],
            next_page_token=_offset_token(first + size) if more else "",
        )

    async def DeleteContext(
        self, request: pb.DeleteContextRequest, context: _Call
    ) -> pb.DeleteContextResponse:
        """Only a tombstone stays."""
        tenant = caller().tenant(request.tenant)
        messages.context_id_faults(request.context_id)
        await self._updating.delete(tenant, request.context_id, request.etag)
        self._uses.gone(tenant, request.context_id)
        return pb.DeleteContextResponse()

    async def _used(self, tenant: str, found: Sequence[Context | ServiceError | None]) -> None:
        who = caller()
        if Role.INTERNAL not in who.roles:
            # Our own services read in order to write; that says nothing of what is needed.
            self._uses.read(tenant, who.key_id, found)
        for one in found:
            if isinstance(one, Context):
                _served[one.served].inc()
                if one.reads >= self._rise_reads:
                    await self._tiers.schedule(tenant, one.context_id)


def _checked(who: Caller, append: pb.Append) -> Entry | ServiceError:
    try:
        return messages.entry(who.tenant(append.tenant), append)
    except ServiceError as error:
        return error


def _result(result: Appended | ServiceError) -> pb.AppendResult:
    if isinstance(result, Appended):
        return pb.AppendResult(
            duplicate=result.duplicate,
            version=result.version,
            status=ItemStatus(),
            outcome=messages.outcome(result),
        )
    return pb.AppendResult(status=ItemStatus(**item_status(result)))


def _get(result: pb.BatchGetResult, context_id: str, found: Context | ServiceError | None) -> None:
    if isinstance(found, Context):
        result.status.SetInParent()
        result.served_tier = found.served
        messages.context(found, result.context)
    else:
        result.status.CopyFrom(ItemStatus(**item_status(found or errors.not_found(context_id))))


def _view(request: pb.GetContextRequest | pb.BatchGetContextsRequest) -> View:
    asked = request.max_events
    if asked < -1 or asked > MOST_EVENTS:
        raise InvalidArgument(
            f"max_events must be -1 to {MOST_EVENTS}", fields={"max_events": f"must be -1 to {MOST_EVENTS}"}
        )
    return View(
        events=USUAL_EVENTS if asked == 0 else max(asked, 0),
        payloads=request.include_payloads,
        vector=request.include_vector,
        used=True,
    )


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidArgument(f"{field} must be 1 to {most}", fields={field: f"must be 1 to {most}"})


def _check_size(found: list[Context]) -> None:
    size = sum(event.ByteSize() for one in found for event in one.events)
    size += sum(len(payload) for one in found for payload in one.payloads)
    if size > LARGEST_PAYLOADS_BYTES:
        raise ResourceExhausted("RESPONSE_TOO_LARGE", "too many payloads for one response: ask for fewer")


def _size(asked: int, usual: int, most: int) -> int:
    if asked < 0:
        raise InvalidArgument("page_size must not be negative", fields={"page_size": "must not be negative"})
    return min(asked or usual, most)


def _offset_token(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _offset(token: str) -> int:
    if not token:
        return 0
    try:
        offset = int(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError):
        offset = -1
    if not 0 < offset <= MOST_REVISIONS:
        raise page_tokens.unknown()
    return offset
