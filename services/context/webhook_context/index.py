"""The search index of one tenant: meaning and words, weighed together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import NamedTuple

from webhook_shared.errors import FailedPrecondition

from webhook_context.contexts import Filter
from webhook_context.vectors import Vectors
from webhook_context.words import Words

MOST_SIMILAR = 200
"""How many of the nearest by meaning take part, at least."""
WEIGHT_OF_WORDS = 0.5
"""Of all the query's words, beside a cosine of 1. Ranks are not fused: a first place by one shared word would
outweigh any meaning."""


class Model(NamedTuple):
    """An embedding model; vectors of two can't be compared."""

    provider: str
    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Document:
    """What the index knows of a context."""

    context_id: str
    version: int
    tool: str
    kind: str
    labels: frozenset[str]
    importance: float
    update_ms: int
    title: str = ""
    body: str = ""
    model: Model | None = None
    vector: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; without a model by words alone."""

    text: str
    model: Model | None = None
    vector: Sequence[float] = ()


class Hit(NamedTuple):
    """A context that was found.

    Attributes:
        similarity: Cosine, -1 to 1; 0 where no vector was compared.
    """

    context_id: str
    score: float
    similarity: float
    highlight: str


class TenantIndex:
    """Contexts of one tenant, found by meaning and by words. Safe for concurrent use by threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._documents: dict[str, Document] = {}
        self._words = Words()
        self._vectors: dict[Model, Vectors] = {}

    def __len__(self) -> int:
        return len(self._documents)

    def version(self, context_id: str) -> int:
        """The version that the index holds; 0 where it holds none."""
        held = self._documents.get(context_id)
        return held.version if held else 0

    def ids(self) -> set[str]:
        """Everything it holds."""
        with self._lock:
            return set(self._documents)

    def apply(self, documents: Iterable[Document], gone: Iterable[str]) -> None:
        """Take in what changed and drop what is gone."""
        with self._lock:
            for document in documents:
                self._put(document)
            for context_id in gone:
                self._drop(context_id)

    def search(self, query: Query, wanted: Filter, most: int) -> list[Hit]:
        """The best hits, best first.

        Raises:
            FailedPrecondition: MODEL_MISMATCH; the index has vectors, but of other models.
        """
        with self._lock:
            similar = self._similar(query, wanted, max(most, MOST_SIMILAR))
            admits = self._admits(wanted)
            worded = {
                one: strength for one, strength in self._words.strengths(query.text).items() if admits(one)
            }
            scores = {
                one: similar.get(one, 0.0) + WEIGHT_OF_WORDS * worded.get(one, 0.0)
                for one in similar.keys() | worded.keys()
            }
            best = sorted(scores, key=lambda one: (-scores[one], one))[:most]
            return [
                Hit(one, scores[one], similar.get(one, 0.0), self._words.highlight(query.text, one))
                for one in best
            ]

    def _similar(self, query: Query, wanted: Filter, most: int) -> dict[str, float]:
        if query.model is None or not self._vectors:
            return {}
        vectors = self._vectors.get(query.model)
        if vectors is None:
            held = ", ".join(sorted(f"{m.provider}/{m.name}/{m.dimension}" for m in self._vectors))
            raise FailedPrecondition(
                "MODEL_MISMATCH", f"the index has vectors of {held}, not of the query's model", models=held
            )
        admits = self._admits(wanted)
        # What is not similar at all is no answer, however little there is.
        alike = ((one, likeness) for one, likeness in vectors.ranked(query.vector) if likeness > 0)
        return dict(islice(((one, likeness) for one, likeness in alike if admits(one)), most))

    def _admits(self, wanted: Filter) -> Callable[[str], bool]:
        if wanted == Filter():
            return lambda _: True

        def admits(context_id: str) -> bool:
            held = self._documents[context_id]
            return (
                wanted.admits_outside(held.tool, held.kind, held.importance)
                and wanted.admits_time(held.update_ms)
                and wanted.admits_labels(held.labels)
            )

        return admits

    def _put(self, document: Document) -> None:
        self._drop_vector(document.context_id)
        self._words.put(document.context_id, document.title, document.body)
        if document.model is not None:
            vectors = self._vectors.setdefault(document.model, Vectors(document.model.dimension))
            vectors.put(document.context_id, document.vector)
        self._documents[document.context_id] = replace(document, title="", body="", vector=())

    def _drop(self, context_id: str) -> None:
        self._drop_vector(context_id)
        self._words.drop(context_id)
        self._documents.pop(context_id, None)

    def _drop_vector(self, context_id: str) -> None:
        held = self._documents.get(context_id)
        if held is None or held.model is None:
            return
        vectors = self._vectors[held.model]
        vectors.drop(context_id)
        if not vectors:
            del self._vectors[held.model]

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            self._words.close()
