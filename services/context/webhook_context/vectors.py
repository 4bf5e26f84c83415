"""Exact nearest neighbours by cosine, in one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST_ROWS = 64
_FIRST_RANKED = 256


class Vectors:
    """Unit vectors of one model by context id. Not safe for concurrent use."""

    def __init__(self, dimension: int) -> None:
        self._matrix: NDArray[np.float32] = np.zeros((_FIRST_ROWS, dimension), dtype=np.float32)
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, context_id: str, vector: Sequence[float] | NDArray[np.float32]) -> None:
        """Keep a vector, scaled to unit length; one without a direction is not kept."""
        unit = _unit(vector)
        if unit is None:
            self.drop(context_id)
            return
        row = self._rows.get(context_id)
        if row is None:
            row = len(self._ids)
            if row == len(self._matrix):
                # Doubling: n vectors cost O(n) copies altogether.
                self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._rows[context_id] = row
            self._ids.append(context_id)
        self._matrix[row] = unit

    def drop(self, context_id: str) -> None:
        """Forget a vector; the last row takes its place."""
        row = self._rows.pop(context_id, None)
        if row is None:
            return
        last = self._ids.pop()
        if last != context_id:
            self._ids[row] = last
            self._rows[last] = row
            self._matrix[row] = self._matrix[len(self._ids)]

    def ranked(self, query: Sequence[float]) -> Iterator[tuple[str, float]]:
        """Ids and similarities, the most similar first."""
        unit = _unit(query)
        if unit is None or not self._ids:
            return
        similarities = self._matrix[: len(self._ids)] @ unit
        done, wanted = 0, _FIRST_RANKED
        while done < len(similarities):
            # Most callers stop early, so only a part is sorted at first.
            wanted = min(wanted, len(similarities))
            for row in _top(similarities, wanted)[done:]:
                yield self._ids[row], float(similarities[row])
            done, wanted = wanted, wanted * 8


def _top(similarities: NDArray[np.float32], count: int) -> list[int]:
    if count < len(similarities):
        edge = np.partition(similarities, len(similarities) - count)[len(similarities) - count]
        rows = np.flatnonzero(similarities >= edge)
    else:
        rows = np.arange(len(similarities))
    ordered: list[int] = rows[np.argsort(-similarities[rows], kind="stable")].tolist()
    return ordered[:count]


def _unit(vector: Sequence[float] | NDArray[np.float32]) -> NDArray[np.float32] | None:
    array = np.asarray(vector, dtype=np.float32)
    length = float(np.linalg.norm(array))
    return array / np.float32(length) if length > 0 and np.isfinite(length) else None
