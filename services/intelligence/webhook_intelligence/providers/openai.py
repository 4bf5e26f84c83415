"""Vectors from an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import openai
from webhook_shared.errors import FailedPrecondition, ServiceError

from webhook_intelligence import metrics
from webhook_intelligence.costs import tokens
from webhook_intelligence.providers.openai_calls import PROVIDER, BadRequest, Malformed, OpenAICalls
from webhook_intelligence.providers.pace import Pace
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel, Limits, Vector, pooled, unit

# The API takes 2,048 texts, 300,000 tokens in all and 8,192 per text; our token counts are estimates.
BATCH_TEXTS = 2048
BATCH_TOKENS = 250_000
BATCH_BYTES = 4 * 2**20
TEXT_TOKENS = 8_000
# As much as a text may have altogether.
TEXT_CHARS = 2**20
# Only these models can be asked for shorter vectors.
_SHORTENABLE = "text-embedding-3"
# A few poisoned texts are worth finding; a batch that is refused altogether is not worth a call per text.
_POISON_SOUGHT = 4


class OpenAIEmbeddings:
    """An embedding model behind an OpenAI-compatible API."""

    def __init__(self, calls: OpenAICalls, name: str, dimension: int) -> None:
        self._calls = calls
        self._model = EmbeddingModel(PROVIDER, name, "", dimension)

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""
        return self._model

    @property
    def limits(self) -> Limits:
        """Those of OpenAI's own API; `batch_size` lowers the first for servers that take less."""
        return Limits(BATCH_TEXTS, BATCH_TOKENS, BATCH_BYTES, TEXT_CHARS, is_remote=True)

    @property
    def pace(self) -> Pace:
        """As the server's answers allow."""
        return self._calls.pace

    def pieces(self, text: str) -> list[str]:
        """In parts of at most 8,000 tokens."""
        return tokens.pieces(text, TEXT_TOKENS)

    def count_tokens(self, text: str) -> int:
        """An estimate on the safe side."""
        return tokens.estimate(text)

    async def embed(
        self, texts: Sequence[str], *, deadline: float, urgent: bool = True
    ) -> list[Embedding | ServiceError]:
        """One result per text, in order; see `EmbeddingProvider`.

        A batch that is refused as such is halved until the text that poisons it stands alone.
        """
        calls = _POISON_SOUGHT * 2 * (1 + math.ceil(math.log2(len(texts))))
        return await _Hunt(self, deadline, calls_left=calls).embed(list(texts))

    async def request(self, texts: list[str], *, deadline: float) -> list[Embedding]:
        """One batch, all or nothing; raises as `OpenAICalls.call`."""
        wanted = self._model

        async def attempt(client: openai.AsyncOpenAI) -> list[Embedding]:
            # Base64 is less than half of the bytes of JSON numbers. Read raw, because the SDK would make an
            # object of every number.
            answer = await client.embeddings.with_raw_response.create(
                model=wanted.name,
                input=texts,
                encoding_format="base64",
                dimensions=wanted.dimension if wanted.name.startswith(_SHORTENABLE) else openai.omit,
            )
            return self._read(answer.http_response.content, texts)

        return await self._calls.call("embed", attempt, deadline=deadline)

    def _read(self, body: bytes, texts: list[str]) -> list[Embedding]:
        """The vectors in the order of the texts, whatever the order of the answer."""
        try:
            answer = json.loads(body)
            by_index = {entry["index"]: _numbers(entry["embedding"]) for entry in answer["data"]}
            vectors = [by_index[i] for i in range(len(texts))]
            billed = int((answer.get("usage") or {}).get("total_tokens") or 0)
        except (TypeError, ValueError, LookupError, AttributeError):
            raise Malformed("vectors are missing") from None
        if {vector.shape for vector in vectors} != {(self._model.dimension,)}:
            # The same with every try: no reason to come again.
            raise FailedPrecondition(
                "PROVIDER_REFUSED",
                f"the provider's vectors do not have the {self._model.dimension} dimensions of "
                "webhook.ai.embedding.dimensions",
            )
        if not all(np.isfinite(vector).all() and vector.any() for vector in vectors):
            raise Malformed("vectors hold no numbers")
        shares = _shares(billed, [self.count_tokens(text) for text in texts])
        metrics.TOKENS.labels(PROVIDER, "embed").inc(sum(shares))
        return [Embedding(unit(vector), tokens=share) for vector, share in zip(vectors, shares, strict=True)]


def _shares(billed: int, estimates: list[int]) -> list[int]:
    """What was billed for a batch, divided as its texts were estimated; the estimates if nothing is said."""
    if billed <= 0:
        return estimates
    ends = [billed * upto // sum(estimates) for upto in accumulate(estimates)]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


def _numbers(embedding: object) -> Vector:
    """As base64 of float32, or as JSON numbers from servers that know no other way."""
    if isinstance(embedding, str):
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
    return np.asarray(embedding, np.float32)


class _Hunt:
    """Finds the texts of a batch that the provider refuses, within a number of calls."""

    def __init__(self, provider: OpenAIEmbeddings, deadline: float, *, calls_left: int) -> None:
        self._provider = provider
        self._deadline = deadline
        self._calls_left = calls_left

    async def embed(self, texts: list[str]) -> list[Embedding | ServiceError]:
        """One result per text, in order."""
        try:
            return list(await self._provider.request(texts, deadline=self._deadline))
        except BadRequest as refused:
            if self._calls_left < 2:
                return [refused] * len(texts)
            if len(texts) == 1:
                return [await self._divided(texts[0], refused)]
        self._calls_left -= 2
        middle = len(texts) // 2
        first, second = await asyncio.gather(self._part(texts[:middle]), self._part(texts[middle:]))
        return [*first, *second]

    async def _part(self, texts: list[str]) -> list[Embedding | ServiceError]:
        """The same, but an outage in the middle of the hunt fails these texts alone."""
        try:
            return await self.embed(texts)
        except ServiceError as error:
            return [error] * len(texts)

    async def _divided(self, text: str, refused: ServiceError) -> Embedding | ServiceError:
        """A long text in halves: its tokens may be more than estimated (digests, base64)."""
        if tokens.estimate(text) < TEXT_TOKENS // 4:
            return refused
        self._calls_left -= 2
        halves = tokens.pieces(text, tokens.estimate(text) // 2 + 1)
        results = [(await self._part([half]))[0] for half in halves]
        parts = [result for result in results if isinstance(result, Embedding)]
        if len(parts) < len(results):
            return next(result for result in results if isinstance(result, ServiceError))
        return pooled(parts, [tokens.estimate(half) for half in halves])
