"""What a context is tied to: the links that its own events tell of, and those of others that name it.

Its own are in the truth. Who names it is known by the search index, so that no write has to keep two
contexts in step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from webhook.context.v1.context_service_pb2 import LinkDirection

from webhook_context import page_tokens
from webhook_context.domain.contexts import Context, Link
from webhook_context.finding.search import Search
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

OUT, IN = LinkDirection.LINK_DIRECTION_OUT, LinkDirection.LINK_DIRECTION_IN


class Tie(NamedTuple):
    """A link as seen from one of its ends; ties are listed in this order."""

    direction: LinkDirection.ValueType
    relation: str
    context_id: str


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """Some ties, each with the context at its other end where that is there.

    Attributes:
        next_token: Where the next ones begin; empty at the end.
        incomplete: Whether the index lacks contexts yet: incoming ties may be missing.
    """

    ties: list[tuple[Tie, Context | None]]
    next_token: str
    incomplete: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Which ties to tell of.

    Attributes:
        relations: Only these; empty for all.
        size: How many at most.
    """

    tenant: str
    context_id: str
    direction: LinkDirection.ValueType
    relations: frozenset[str]
    size: int


class Neighbors:
    """Finds what contexts are tied to."""

    def __init__(self, store: RedisContexts, search: Search) -> None:
        self._store = store
        self._search = search

    async def of(self, asked: Asked, token: str) -> Neighborhood:
        """A page of ties.

        Raises:
            InvalidArgument: The token is none of ours.
            NotFound: CONTEXT_NOT_FOUND.
            REDIS_TROUBLE: The store can't be reached.
        """
        after = read_token(token)
        held = await self._store.read_one(asked.tenant, asked.context_id, View())
        ties = [tie for tie in _outgoing(held, asked) if after is None or tie > after]
        incomplete = False
        if asked.direction != OUT and len(ties) <= asked.size:
            incoming, incomplete = await self._incoming(asked, after, asked.size + 1)
            ties += incoming
        shown = ties[: asked.size]
        contexts = await self._contexts(asked.tenant, shown)
        more = len(ties) > asked.size
        pairs = [(tie, contexts.get(tie.context_id)) for tie in shown]
        return Neighborhood(pairs, write_token(shown[-1]) if more else "", incomplete)

    async def _incoming(self, asked: Asked, after: Tie | None, most: int) -> tuple[list[Tie], bool]:
        behind = (after.relation, after.context_id) if after and after.direction == IN else ("", "")
        links, incomplete = await self._search.linking_to(
            asked.tenant, asked.context_id, sorted(asked.relations), behind, most
        )
        return [Tie(IN, *link) for link in links], incomplete

    async def _contexts(self, tenant: str, ties: Sequence[Tie]) -> dict[str, Context]:
        ids = list(dict.fromkeys(tie.context_id for tie in ties))
        found = await self._store.read(tenant, ids, View())
        return {one.context_id: one for one in found if isinstance(one, Context)}


def _outgoing(held: Context, asked: Asked) -> list[Tie]:
    if asked.direction == IN:
        return []
    links: list[Link] = [
        link for link in held.facts.links if not asked.relations or link.relation in asked.relations
    ]
    return sorted(Tie(OUT, *link) for link in links)


def write_token(last: Tie) -> str:
    """An opaque name of a tie."""
    return page_tokens.write(last)


def read_token(token: str) -> Tie | None:
    """The tie that a token names; None for an empty one.

    Raises:
        InvalidArgument: It is none of ours.
    """
    if not token:
        return None
    match page_tokens.read(token):
        case [int(direction), str(relation), str(context_id)] if direction in (OUT, IN):
            return Tie(OUT if direction == OUT else IN, relation, context_id)
    raise page_tokens.unknown()
