"""What the search index takes of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from webhook.context.v1.context_pb2 import Tier

from webhook_context.domain.contexts import Context, Link
from webhook_context.domain.excerpts import RECENT_EVENTS, excerpt

LONGEST_BODY_CHARS = 12_000


class Model(NamedTuple):
    """An embedding model; vectors of two can't be compared."""

    provider: str
    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Document:
    """What the index takes of a context.

    Attributes:
        vectors: By model: that of the one that serves, and that of the next one where there is one.
    """

    context_id: str
    version: int
    tool: str
    kind: str
    tier: Tier.ValueType
    labels: frozenset[str]
    importance: float
    update_ms: int
    pinned: bool = False
    links: tuple[Link, ...] = ()
    title: str = ""
    body: str = ""
    vectors: Mapping[Model, Sequence[float] | NDArray[np.float32]] = field(default_factory=dict)


class Coming(Protocol):
    """The vector of the next model."""

    @property
    def model(self) -> Model:
        """Whose it is."""

    @property
    def vector(self) -> NDArray[np.float32]:
        """Unit length."""


def document_of(context: Context, coming: Coming | None = None) -> Document:
    """What the index takes of a context that was read with its vector and its newest texts."""
    facts, enrichment = context.facts, context.enrichment
    body = [enrichment.summary] if enrichment else []
    body += [facts.word("state"), " ".join(facts.labels.value), " ".join(facts.recent_actors())]
    texts = context.excerpt + excerpt(context.events)
    body += reversed(texts[-RECENT_EVENTS:])
    # Last, so that an id is rarely what a highlight shows.
    body = [*body, context.context_id]
    model, vector = vector_of(context)
    vectors: dict[Model, Sequence[float] | NDArray[np.float32]] = {}
    if coming is not None:
        vectors[coming.model] = coming.vector
    if model is not None:
        vectors[model] = vector
    return Document(
        context_id=context.context_id,
        version=context.version,
        tool=facts.word("tool"),
        kind=facts.word("kind"),
        tier=context.tier,
        labels=frozenset(facts.labels.value),
        importance=context.importance,
        update_ms=context.update_ms,
        pinned=context.pinned,
        links=tuple(facts.links),
        title=facts.word("title"),
        body="\n".join(part for part in body if part)[:LONGEST_BODY_CHARS],
        vectors=vectors,
    )


def vector_of(context: Context) -> tuple[Model | None, list[float]]:
    """The vector of a context that was read with it, and its model; None and nothing where it has none."""
    enrichment = context.enrichment
    if enrichment is None or not enrichment.vector:
        return None, []
    by = enrichment.embedding_model
    return Model(by.provider, by.name, len(enrichment.vector)), list(enrichment.vector)
