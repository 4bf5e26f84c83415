"""The messages of finding and following, checked and turned into the domain's words, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import InvalidArgument

from webhook_context import messages
from webhook_context.changes.feeds import DELETED
from webhook_context.changes.watching import Page, Told, Wish, write_token
from webhook_context.domain.contexts import Context
from webhook_context.domain.lifecycle import TIERS
from webhook_context.finding.index import Hit
from webhook_context.finding.neighbors import Asked, Neighborhood
from webhook_context.finding.walks import Walk
from webhook_context.finding.window import SECTIONS, Limits, Missing, Section, Window, limits_of
from webhook_context.finding.windows import Request
from webhook_context.finding.words import joined

LARGEST_BUDGET = 1_000_000
MOST_LEFT_OUT = 100
MOST_WATCHED = 1000


def walk(tenant: str, request: pb.SearchContextsRequest) -> Walk:
    """The walk through the pages of a search.

    Raises:
        InvalidArgument: The page token is none of this search.
    """
    # Whatever decides what is found, and nothing else.
    asked = pb.SearchContextsRequest(
        tenant=tenant,
        query=request.query,
        query_vector=request.query_vector,
        query_model=request.query_model,
        filter=request.filter,
    )
    return Walk.of([asked.SerializeToString(deterministic=True)], request.page_token)


def match(hit: Hit, found: Context) -> pb.Match:
    """A context that was found, and why."""
    return pb.Match(
        context=messages.context(found),
        score=hit.score,
        similarity=hit.similarity,
        highlight=joined(hit.highlight),
        word_strength=hit.words,
        highlight_parts=[pb.HighlightPart(text=text, matched=matched) for text, matched in hit.highlight],
    )


def asked_neighbors(tenant: str, request: pb.ListNeighborsRequest, size: int) -> Asked:
    """Which ties to tell of.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    messages.context_id_faults(request.context_id)
    if request.direction not in pb.LinkDirection.values():
        raise InvalidArgument("direction is unknown", fields={"direction": "is unknown"})
    return Asked(tenant, request.context_id, request.direction, frozenset(request.relations), size)


def neighbors(found: Neighborhood) -> pb.ListNeighborsResponse:
    """A page of ties as the contract has it."""
    return pb.ListNeighborsResponse(
        neighbors=[
            pb.Neighbor(
                direction=tie.direction,
                relation=tie.relation,
                context_id=tie.context_id,
                context=messages.context(context) if context else None,
            )
            for tie, context in found.ties
        ],
        next_page_token=found.next_token,
        index_incomplete=found.incomplete,
    )


def window_request(tenant: str, request: pb.AssembleWindowRequest) -> Request:
    """What a window is to be about.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    if not 1 <= request.token_budget <= LARGEST_BUDGET:
        fault = f"must be 1 to {LARGEST_BUDGET}"
        raise InvalidArgument(f"token_budget {fault}", fields={"token_budget": fault})
    query = None
    if request.query or request.query_vector or not request.context_id:
        searched = pb.SearchContextsRequest(query=request.query, query_vector=request.query_vector)
        if request.HasField("query_model"):
            searched.query_model.CopyFrom(request.query_model)
        query = messages.query(searched, exact=True)
    if request.context_id:
        messages.context_id_faults(request.context_id)
    return Request(
        tenant=tenant,
        context_id=request.context_id,
        query=query,
        budget=request.token_budget,
        limits=limits_of(request.token_budget, _given(request.limits)),
        wanted=messages.wanted(request.filter),
    )


def _given(limits: Sequence[pb.SectionLimits]) -> dict[Section, tuple[int, int | None]]:
    given: dict[Section, tuple[int, int | None]] = {}
    for one in limits:
        if one.section not in SECTIONS or one.section in given:
            raise InvalidArgument(
                "limits are for one section each", fields={"limits": "are for one section each"}
            )
        ceiling = one.ceiling_tokens if one.HasField("ceiling_tokens") else None
        given[one.section] = (one.floor_tokens, ceiling)
    return given


def window(made: Window, limits: Mapping[Section, Limits], *, incomplete: bool) -> pb.AssembleWindowResponse:
    """A window as the contract has it."""
    response = pb.AssembleWindowResponse(
        text=made.text,
        token_count=made.tokens,
        left_out=[_left_out(one) for one in made.missing[:MOST_LEFT_OUT]],
        left_out_count=len(made.missing),
        index_incomplete=incomplete,
    )
    uses = {
        section: response.sections.add(
            section=section, floor_tokens=limits[section].floor, ceiling_tokens=limits[section].ceiling
        )
        for section in SECTIONS
    }
    for item, tokens in made.parts:
        response.parts.add(
            section=item.section,
            context_id=item.context_id,
            version=item.version,
            event_id=item.event_id,
            reason=item.reason,
            text=item.text,
            token_count=tokens,
            truncated=item.cut,
        )
        uses[item.section].token_count += tokens
        uses[item.section].part_count += 1
    for missing in made.missing:
        uses[missing.item.section].left_out_count += 1
    return response


def _left_out(missing: Missing) -> pb.LeftOut:
    return pb.LeftOut(
        section=missing.item.section,
        context_id=missing.item.context_id,
        event_id=missing.item.event_id,
        token_count=missing.tokens,
        reason=missing.reason,
    )


def wish(tenant: str, request: pb.WatchContextsRequest) -> Wish:
    """What a watcher wants to hear of.

    Raises:
        InvalidArgument: With the fields that are wrong.
    """
    if len(request.context_ids) > MOST_WATCHED:
        fault = f"must be at most {MOST_WATCHED}"
        raise InvalidArgument(f"context_ids {fault}", fields={"context_ids": fault})
    return Wish(
        tenant, messages.wanted(request.filter), frozenset(request.context_ids), request.include_contexts
    )


def watched(page: Page) -> pb.WatchContextsResponse:
    """Changes as the contract has them."""
    return pb.WatchContextsResponse(
        changes=[_change(told) for told in page.told], resume_token=write_token(page.position)
    )


def _change(told: Told) -> pb.ContextChange:
    position, touched = told.change
    assert touched is not None
    moment = Timestamp()
    moment.FromMilliseconds(position.time_ms)
    kind = pb.ChangeKind.CHANGE_KIND_CHANGED
    if touched.what == DELETED:
        kind = pb.ChangeKind.CHANGE_KIND_DELETED
    elif touched.what in TIERS:
        kind = pb.ChangeKind.CHANGE_KIND_MOVED
    return pb.ContextChange(
        context_id=touched.context_id,
        version=touched.version,
        kind=kind,
        change_time=moment,
        tier=TIERS.get(touched.what, Tier.TIER_UNSPECIFIED),
        context=messages.context(told.context) if told.context else None,
    )
