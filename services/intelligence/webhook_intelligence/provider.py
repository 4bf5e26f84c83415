"""What a model provider is, to the rest of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from webhook_shared.errors import ServiceError

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingModel:
    """Which vectors these are; those of different models (or revisions) can't be compared."""

    provider: str
    name: str
    revision: str
    dimension: int


@dataclass(frozen=True)
class Limits:
    """How much a provider takes at once.

    Attributes:
        batch_texts: Most texts of one call.
        batch_tokens: Most tokens of one call, all texts together.
        text_chars: What of a text is read at most; the rest can't matter or is refused.
        in_flight: Most calls under way at once.
    """

    batch_texts: int
    batch_tokens: int
    text_chars: int
    in_flight: int


@dataclass(frozen=True, eq=False)
class Embedding:
    """A unit vector.

    Attributes:
        vector: The numbers.
        truncated: Whether the end of its text was cut off.
        tokens: Its share of what the provider has billed; 0 where nothing was.
    """

    vector: Vector
    truncated: bool = False
    tokens: int = 0


class EmbeddingProvider(Protocol):
    """Makes vectors."""

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""

    @property
    def limits(self) -> Limits:
        """What one call may hold."""

    def count_tokens(self, text: str) -> int:
        """About how many tokens a text has; cheap, never less than half of the truth."""

    async def embed(self, texts: Sequence[str], *, deadline: float) -> list[Embedding | ServiceError]:
        """One result per text, in order; a text that is refused fails alone.

        Args:
            texts: Not empty, none empty, within the limits.
            deadline: When to give up, in the time of the running loop.

        Raises:
            ServiceError: UNAVAILABLE/PROVIDER_UNREACHABLE or FAILED_PRECONDITION/PROVIDER_REFUSED, for all.
        """


def unit(vector: Vector) -> Vector:
    """The vector at length 1; a null vector stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
