"""What a model provider is, to the rest of the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from webhook_shared.errors import ServiceError

from webhook_intelligence.providers.pace import Pace

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
        batch_bytes: Most bytes of text of one call.
        text_chars: What of a text is read at most; the rest is cut off.
        is_remote: Whether a call costs a journey: then texts wait a moment for company, and replicas let
            one of them ask for all.
    """

    batch_texts: int
    batch_tokens: int
    batch_bytes: int
    text_chars: int
    is_remote: bool


@dataclass(frozen=True, eq=False)
class Embedding:
    """A unit vector.

    Attributes:
        vector: The numbers.
        truncated: Whether the end of its text was cut off.
        tokens: Its share of what the provider has billed; 0 where nothing was.
        pieces: Of how many pieces of its text it is the mean.
    """

    vector: Vector
    truncated: bool = False
    tokens: int = 0
    pieces: int = 1


class EmbeddingProvider(Protocol):
    """Makes vectors."""

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""

    @property
    def limits(self) -> Limits:
        """What one call may hold."""

    @property
    def pace(self) -> Pace:
        """How many calls may be under way."""

    def pieces(self, text: str) -> list[str]:
        """A text in the parts that the model can read one by one; the whole where `embed` sees to that."""

    def count_tokens(self, text: str) -> int:
        """About how many tokens a text has; cheap, never less than half of the truth."""

    async def embed(
        self, texts: Sequence[str], *, deadline: float, urgent: bool = True
    ) -> list[Embedding | ServiceError]:
        """One result per text, in order; a text that is refused fails alone.

        Args:
            texts: Not empty, none empty, within the limits.
            deadline: When to give up, in the time of the running loop.
            urgent: Whether somebody waits for them; if not, a model on this machine lets all else go first.

        Raises:
            ServiceError: UNAVAILABLE/PROVIDER_UNREACHABLE or FAILED_PRECONDITION/PROVIDER_REFUSED, for all.
        """


def pooled(parts: Sequence[Embedding], weights: Sequence[int]) -> Embedding:
    """The vector of a text from those of its parts: their mean, weighted, at length 1 again.

    Args:
        parts: One at least.
        weights: Tokens of each part.
    """
    if len(parts) == 1:
        return parts[0]
    mean = np.average([part.vector for part in parts], axis=0, weights=weights).astype(np.float32)
    return Embedding(
        unit(mean),
        truncated=any(part.truncated for part in parts),
        tokens=sum(part.tokens for part in parts),
        pieces=sum(part.pieces for part in parts),
    )


def unit(vector: Vector) -> Vector:
    """The vector at length 1; a null vector stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
