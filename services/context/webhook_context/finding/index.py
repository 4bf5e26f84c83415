"""The search index of one tenant: meaning and words, weighed together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import FailedPrecondition

from webhook_context.domain.contexts import Filter, Link
from webhook_context.finding.catalogue import Catalogue, condition
from webhook_context.finding.documents import Document, Model
from webhook_context.finding.vectors import EXACT_BELOW, Vectors
from webhook_context.finding.words import Piece, Words

MOST_SIMILAR = 200
"""How many of the nearest by meaning take part, at least."""
_TRIED = 3
WEIGHT_OF_WORDS = 0.25
"""Of all the query's words, beside a cosine of 1. Ranks are not fused: a first place by one shared word would
outweigh any meaning (docs/adr/0007-search.md)."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; without a model by words alone.

    Attributes:
        exact: Compare every vector, so that every replica finds the same.
    """

    text: str
    model: Model | None = None
    vector: Sequence[float] = ()
    exact: bool = False


class Hit(NamedTuple):
    """A context that was found.

    Attributes:
        similarity: Cosine, -1 to 1; 0 where no vector was compared.
        words: How much of the query's words it has, 0 to 1.
    """

    context_id: str
    score: float
    similarity: float
    words: float
    highlight: Sequence[Piece] = ()


class _Held(NamedTuple):
    row: int
    version: int
    models: frozenset[Model]


class TenantIndex:
    """Contexts of one tenant, found by meaning, by words and by links. Safe for concurrent use by threads.

    Args:
        exact_below: From so many vectors of a model on, a graph finds the nearest.
    """

    def __init__(self, exact_below: int = EXACT_BELOW) -> None:
        self._lock = Lock()
        # Calls come from different threads, one at a time.
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._catalogue = Catalogue(self._db)
        self._words = Words(self._db)
        self._vectors: dict[Model, Vectors] = {}
        self._exact_below = exact_below
        self._held: dict[str, _Held] = {}
        self._ids: list[str | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._held)

    def version(self, context_id: str) -> int:
        """The version that the index holds; 0 where it holds none."""
        held = self._held.get(context_id)
        return held.version if held else 0

    def ids(self) -> set[str]:
        """Everything it holds."""
        with self._lock:
            return set(self._held)

    def apply(
        self,
        documents: Iterable[Document],
        gone: Iterable[str],
        moved: Mapping[str, Tier.ValueType] | None = None,
    ) -> None:
        """Take in what changed, drop what is gone, and note to which tiers others have moved."""
        with self._lock, self._db:
            # One transaction: each by itself would be a segment of the full text of its own.
            self._db.execute("BEGIN")
            for context_id in gone:
                self._drop(context_id)
            for document in documents:
                self._put(document)
            # Last: a document may have been read before its context moved.
            for context_id, tier in (moved or {}).items():
                if held := self._held.get(context_id):
                    self._catalogue.move(held.row, tier)
            for vectors in self._vectors.values():
                vectors.catch_up()

    def search(self, query: Query, wanted: Filter, most: int) -> list[Hit]:
        """The best hits, best first.

        Raises:
            FailedPrecondition: MODEL_MISMATCH; the index has vectors, but of other models.
        """
        with self._lock:
            vectors = self._vectors_for(query)
            worded = self._words.strengths(query.text, condition(wanted))
            nearest: list[int] = []
            if vectors is not None:
                nearest = self._nearest(vectors, query, wanted, max(most, MOST_SIMILAR))
            rows = list(dict.fromkeys([*nearest, *worded]))
            likenesses = (
                vectors.similarities(query.vector, rows) if vectors is not None else [0.0] * len(rows)
            )
            hits = {
                row: self._hit(row, likeness, worded.get(row, 0.0))
                for row, likeness in zip(rows, likenesses, strict=True)
                # What is not similar at all is no answer, however little there is.
                if likeness > 0 or row in worded
            }
            best = sorted(hits, key=lambda row: (-hits[row].score, hits[row].context_id))[:most]
            marked = self._words.highlights(query.text, [row for row in best if row in worded])
            return [hits[row]._replace(highlight=marked.get(row, ())) for row in best]

    def pinned(self, wanted: Filter, most: int) -> list[str]:
        """Pinned contexts, the most important first."""
        with self._lock:
            return self._catalogue.pinned(wanted, most)

    def linking_to(
        self, context_id: str, relations: Sequence[str], after: tuple[str, str], most: int
    ) -> list[Link]:
        """Who names a context, as (relation, id), in this order, behind a given one."""
        with self._lock:
            return self._catalogue.linking_to(context_id, relations, after, most)

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            self._db.close()

    def _nearest(self, vectors: Vectors, query: Query, wanted: Filter, most: int) -> list[int]:
        if wanted == Filter():
            return vectors.nearest(query.vector, most, exact=query.exact)
        # A filter that admits much is asked about the nearest alone; only where it refuses most of them, the
        # nearest are looked for among what it admits.
        nearest = vectors.nearest(query.vector, _TRIED * most, exact=query.exact)
        admitted = self._catalogue.admitted(wanted, nearest)
        if len(admitted) >= most or len(nearest) == len(vectors):
            return admitted[:most]
        return vectors.nearest(query.vector, most, self._catalogue.rows(wanted))

    def _hit(self, row: int, similarity: float, words: float) -> Hit:
        context_id = self._ids[row]
        assert context_id is not None
        return Hit(context_id, max(similarity, 0.0) + WEIGHT_OF_WORDS * words, similarity, words)

    def _vectors_for(self, query: Query) -> Vectors | None:
        if query.model is None or not self._vectors:
            return None
        vectors = self._vectors.get(query.model)
        if vectors is None:
            held = ", ".join(sorted(f"{m.provider}/{m.name}/{m.dimension}" for m in self._vectors))
            raise FailedPrecondition(
                "MODEL_MISMATCH", f"the index has vectors of {held}, not of the query's model", models=held
            )
        return vectors

    def _put(self, document: Document) -> None:
        held = self._held.get(document.context_id)
        row = self._new_row(document.context_id) if held is None else held.row
        if held is not None:
            self._catalogue.drop(row)
            self._words.drop(row)
            self._drop_vectors(held.row, held.models - document.vectors.keys())
        self._held[document.context_id] = _Held(row, document.version, frozenset(document.vectors))
        self._catalogue.put(row, document)
        self._words.put(row, document.title, document.body)
        for model, vector in document.vectors.items():
            vectors = self._vectors.get(model)
            if vectors is None:
                vectors = self._vectors[model] = Vectors(model.dimension, self._exact_below)
            vectors.put(row, vector)

    def _new_row(self, context_id: str) -> int:
        if self._free:
            row = self._free.pop()
            self._ids[row] = context_id
        else:
            row = len(self._ids)
            self._ids.append(context_id)
        return row

    def _drop(self, context_id: str) -> None:
        held = self._held.pop(context_id, None)
        if held is None:
            return
        self._catalogue.drop(held.row)
        self._words.drop(held.row)
        self._drop_vectors(held.row, held.models)
        self._ids[held.row] = None
        self._free.append(held.row)

    def _drop_vectors(self, row: int, models: Iterable[Model]) -> None:
        for model in models:
            if (vectors := self._vectors.get(model)) is not None:
                vectors.drop(row)
                if not vectors:
                    del self._vectors[model]
