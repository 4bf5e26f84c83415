"""Contexts of about 10 KB, each of one real-shaped event, and vectors to find them by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from webhook.context.v1.context_pb2 import ContextEvent
from webhook.context.v1.context_service_pb2 import Append

from tests.bench.consume.corpus import Payload, payloads

TENANT = "default"
TARGET_BYTES = 10_000
SMALLEST_BYTES, LARGEST_BYTES = 8_000, 12_500
DIMENSION = 384
# Texts come in topics: around so many centres their vectors lie.
TOPICS = 500
SPREAD = 0.7
SEED = 11

Vectors = npt.NDArray[np.float32]


def bodies(count: int) -> list[Payload]:
    """Payloads of about the right size, hashes, ids, times and names of each its own.

    Raises:
        FileNotFoundError: The examples are not installed (`make node`).
    """
    wanted = count
    while True:
        fitting = [each for each in payloads(wanted) if SMALLEST_BYTES <= len(each.body) <= LARGEST_BYTES]
        if len(fitting) >= count:
            return fitting[:count]
        wanted += max(count, 100)


def context_id(number: int) -> str:
    """Of the context of that number."""
    return f"github:bench/contexts:issue:{number}"


def appends(made: list[Payload], first: int, count: int) -> Iterator[Append]:
    """What makes the contexts from a number on."""
    for number in range(first, first + count):
        payload = made[number % len(made)]
        event = ContextEvent(
            event_id=f"e{number}",
            type=payload.type,
            action=payload.action,
            actor=f"actor-{number % 997}",
            text=f"Number {number} is about {payload.type} and what became of it.",
            payload=payload.body,
            content_type="application/json",
        )
        event.received_time.GetCurrentTime()
        yield Append(
            tenant=TENANT,
            context_id=context_id(number),
            tool="github",
            kind="issue",
            event=event,
            title=f"Issue {number}",
        )


def vectors(count: int, *, seed: int = SEED) -> Vectors:
    """Unit vectors in topics; with another seed other ones of the same topics."""
    centres = np.random.default_rng(SEED).standard_normal((TOPICS, DIMENSION), dtype=np.float32)
    chance = np.random.default_rng(seed)
    made = centres[chance.integers(TOPICS, size=count)]
    made += SPREAD * chance.standard_normal((count, DIMENSION), dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made
