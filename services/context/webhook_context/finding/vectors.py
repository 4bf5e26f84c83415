"""Nearest neighbours by cosine: exact while there are few, over a graph when there are many.

Vectors are kept once, as float16 in one matrix. Above a number of them a graph (HNSW, vectors as int8)
finds candidates, and the matrix says how near these really are. Similarities are computed pair by pair, so
that they are the same wherever a vector lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numkong
import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

Rows = NDArray[np.int64]
Similarities = NDArray[np.float32]

EXACT_BELOW = 25_000
"""Where a graph begins to be faster: with 384 numbers a look at each takes 0.1 ms per thousand, the graph
2.4 ms whatever there are."""
_FIRST_ROWS = 64
_CAUGHT_UP_AT_ONCE = 512
_CONNECTIVITY = 16
_EXPANSION = 128
_CANDIDATES, _LEAST_CANDIDATES = 2, 512
"""So many times what is wanted is taken from the graph: int8 puts neighbours in a slightly wrong order."""


class Vectors:
    """Unit vectors of one model by row. Not safe for concurrent use.

    Args:
        dimension: Numbers in each.
        exact_below: From so many vectors on a graph is kept beside the matrix.
    """

    def __init__(self, dimension: int, exact_below: int = EXACT_BELOW) -> None:
        self._matrix: NDArray[np.float16] = np.zeros((_FIRST_ROWS, dimension), dtype=np.float16)
        self._present: NDArray[np.bool_] = np.zeros(_FIRST_ROWS, dtype=np.bool_)
        self._count = 0
        self._exact_below = exact_below
        self._graph: Index | None = None
        self._graph_lacks: set[int] = set()

    def __len__(self) -> int:
        return self._count

    @property
    def is_exact(self) -> bool:
        """Whether a search without a filter looks at every vector."""
        return self._graph is None or self.lacking > 0

    @property
    def lacking(self) -> int:
        """How many the graph has yet to be given."""
        return len(self._graph_lacks)

    def put(self, row: int, vector: Sequence[float] | NDArray[np.float32]) -> None:
        """Keep a vector, scaled to unit length; one without a direction is not kept."""
        unit = _unit(vector)
        if unit is not None and row < len(self._present) and np.array_equal(self._matrix[row], unit):
            return
        self.drop(row)
        if unit is None:
            return
        while row >= len(self._present):
            # Doubling: n vectors cost O(n) copies altogether.
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._present = np.concatenate([self._present, np.zeros_like(self._present)])
        self._matrix[row] = unit
        self._present[row] = True
        self._count += 1
        if self._graph is not None:
            self._graph_lacks.add(row)
        elif self._count >= self._exact_below:
            self._graph = _graph(self._matrix.shape[1])
            self._graph_lacks.update(self.rows().tolist())

    def drop(self, row: int) -> None:
        """Forget a vector."""
        if row >= len(self._present) or not self._present[row]:
            return
        self._present[row] = False
        self._matrix[row] = 0
        self._count -= 1
        if row in self._graph_lacks:
            self._graph_lacks.discard(row)
        elif self._graph is not None:
            self._graph.remove(row)
        if self._count < self._exact_below // 2:
            self._graph = None
            self._graph_lacks.clear()

    def catch_up(self, most: int = _CAUGHT_UP_AT_ONCE) -> None:
        """Let the graph have some of the vectors that it lacks; about a quarter of a millisecond each."""
        if self._graph is None or not self._graph_lacks:
            return
        rows = np.array([self._graph_lacks.pop() for _ in range(min(most, len(self._graph_lacks)))])
        self._graph.add(rows, self._matrix[rows].astype(np.float32), threads=1)

    def rows(self) -> Rows:
        """All that there are."""
        return np.flatnonzero(self._present)

    def nearest(
        self, query: Sequence[float], most: int, among: Rows | None = None, *, exact: bool = False
    ) -> list[int]:
        """Rows, the most similar first; equally similar ones in no particular order.

        Args:
            query: Of any length but zero.
            most: How many.
            among: Only of these, each of which is looked at; None for all.
            exact: Look at each of them, however many there are.
        """
        unit = _unit(query)
        if unit is None or not self._count:
            return []
        if among is None:
            rows = self.rows() if exact or self.is_exact else self._candidates(unit, most)
        else:
            among = among[among < len(self._present)]
            rows = among[self._present[among]]
        similarities = self._compared(unit, rows)
        if most < len(rows):
            best = np.argpartition(-similarities, most)[:most]
            rows, similarities = rows[best], similarities[best]
        found: list[int] = rows[np.argsort(-similarities, kind="stable")].tolist()
        return found

    def similarities(self, query: Sequence[float], rows: Sequence[int]) -> list[float]:
        """Cosines of these; 0 where a row has no vector."""
        unit = _unit(query)
        if unit is None or not rows:
            return [0.0] * len(rows)
        chosen = np.asarray(rows, dtype=np.int64)
        held = chosen < len(self._present)
        compared = np.zeros(len(chosen))
        compared[held] = self._compared(unit, chosen[held])
        found: list[float] = compared.tolist()
        return found

    def _candidates(self, unit: NDArray[np.float16], most: int) -> Rows:
        assert self._graph is not None
        wanted = min(max(_CANDIDATES * most, _LEAST_CANDIDATES), len(self._graph))
        found = self._graph.search(unit.astype(np.float32), wanted, threads=1)
        return np.asarray(found.keys, dtype=np.int64)

    def _compared(self, unit: NDArray[np.float16], rows: Rows) -> Similarities:
        if not len(rows):
            return np.zeros(0, dtype=np.float32)
        # All in order need not be copied.
        whole = np.array_equal(rows, np.arange(len(rows)))
        matrix = self._matrix[: len(rows)] if whole else self._matrix[rows]
        compared: Similarities = np.asarray(
            numkong.cdist(unit[np.newaxis], matrix, metric="inner"), dtype=np.float32
        )[0]
        return compared


def _graph(dimension: int) -> Index:
    return Index(
        ndim=dimension,
        metric="cos",
        dtype="i8",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION,
        expansion_search=_EXPANSION,
    )


def _unit(vector: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float16] | None:
    array = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(array))
    return (array / np.float32(length)).astype(np.float16) if length > 0 and np.isfinite(length) else None
