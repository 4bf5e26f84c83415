"""Two embedding models over the same contexts: what they find of what is asked, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAREST = 10

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a comparison has found; shares from 0 to 1, 1 where there was no question.

    Attributes:
        recall_serving: Questions whose own context is among the nearest, by the model that serves.
        recall_next: The same by the next one.
        overlap: Of the nearest that both have.
    """

    questions: int
    recall_serving: float
    recall_next: float
    overlap: float


class Sample:
    """Vectors of both models, and titles to ask with, evenly spread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._titles: list[tuple[int, str]] = []
        self._count = 0
        self._every = 1
        self.serving: list[NDArray[np.float16]] = []
        self.following: list[NDArray[np.float16]] = []

    def add(self, title: str, serving: Sequence[float], following: Matrix) -> None:
        """One context."""
        at = len(self.serving)
        self.serving.append(np.asarray(serving, np.float16))
        self.following.append(following.astype(np.float16))
        if title and at % self._every == 0:
            self._titles.append((at, title))
        if len(self._titles) >= 2 * self._most:
            # Every second one, so that they stay spread over all that there is.
            self._titles = self._titles[::2]
            self._every *= 2

    def questions(self) -> list[str]:
        """What to ask."""
        return [title for _, title in self._asked()]

    def places(self) -> list[int]:
        """Of the contexts that the questions are about."""
        return [at for at, _ in self._asked()]

    def _asked(self) -> list[tuple[int, str]]:
        return self._titles[: self._most]


def compare(sample: Sample, serving: Sequence[Matrix], following: Sequence[Matrix]) -> Agreement:
    """Ask all questions of both; takes about a millisecond per question and ten thousand contexts.

    Args:
        sample: The contexts.
        serving: The questions' vectors by the model that serves.
        following: The same by the next one.
    """
    places = sample.places()
    if not places:
        return Agreement(0, 1.0, 1.0, 1.0)
    before, after = _nearest(sample.serving, serving), _nearest(sample.following, following)
    pairs = list(zip(places, before, after, strict=True))
    return Agreement(
        len(places),
        recall_serving=float(np.mean([place in old for place, old, _ in pairs])),
        recall_next=float(np.mean([place in new for place, _, new in pairs])),
        overlap=float(np.mean([len(old & new) / len(old) for _, old, new in pairs])),
    )


def _nearest(contexts: Sequence[NDArray[np.float16]], questions: Sequence[Matrix]) -> list[set[int]]:
    matrix = np.stack(contexts)
    most = min(NEAREST, len(contexts))
    return [
        set(np.argpartition(-(matrix @ question.astype(np.float16)), most - 1)[:most].tolist())
        for question in questions
    ]
