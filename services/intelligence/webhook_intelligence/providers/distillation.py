"""A model of one vector per token, made from a network: each token goes through it once.

The vector of a text is then the mean of its tokens', weighted by how rare they are: no network, no
attention, a hundred times as fast, and blind to the order of words.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from webhook_intelligence.providers.bert import Array, Bert

log = structlog.get_logger()

#: Another way to distil makes other vectors.
VERSION = "1"
TOKENS_AT_ONCE = 340
# Smooth inverse frequency: a token that makes up the share p of all text weighs a / (a + p). The vocabulary
# is sorted by frequency, about, so p follows Zipf's law.
SIF_A = 1e-4
ZIPF_SHIFT = 2.7
_TENSOR = "vectors"


def distilled(bert: Bert, tokenizer: Tokenizer, revision: str, directory: Path, *, threads: int) -> Array:
    """Vectors of all tokens, from a file where they have been made before; making them takes half a minute.

    Args:
        bert: The network.
        tokenizer: Its tokeniser.
        revision: Of its weights.
        directory: Where the file is kept; made if missing.
        threads: How many to use.

    Returns:
        (tokens, hidden size), weights included.
    """
    file = directory / f"static-{VERSION}-{revision}.safetensors"
    known = _read(file, revision)
    if known is not None:
        return known
    log.info("distillation.began", tokens=tokenizer.get_vocab_size(), file=str(file))
    vectors = _weighted(_contextless(bert, tokenizer, threads))
    directory.mkdir(parents=True, exist_ok=True)
    _write(file, vectors, revision)
    log.info("distillation.done", file=str(file))
    return vectors


def _contextless(bert: Bert, tokenizer: Tokenizer, threads: int) -> Array:
    """What the network says of each token alone."""
    begin, end = tokenizer.token_to_id("[CLS]") or 0, tokenizer.token_to_id("[SEP]") or 0

    def encode(ids: Sequence[int]) -> Array:
        return bert.encode([(begin, token, end) for token in ids])

    size = tokenizer.get_vocab_size()
    parts = [range(at, min(at + TOKENS_AT_ONCE, size)) for at in range(0, size, TOKENS_AT_ONCE)]
    with ThreadPoolExecutor(threads, "distillation") as pool:
        return np.concatenate(list(pool.map(encode, parts)))


def _weighted(vectors: Array) -> Array:
    """Without what all tokens have in common, and rare ones counting more than frequent ones."""
    share = 1 / (np.arange(len(vectors)) + ZIPF_SHIFT)
    share /= share.sum()
    weights = SIF_A / (SIF_A + share)
    found: Array = ((vectors - vectors.mean(axis=0)) * weights[:, None]).astype(np.float32)
    return found


def _write(file: Path, vectors: Array, revision: str) -> None:
    """All or nothing: a file of this name is whole."""
    half = {_TENSOR: np.ascontiguousarray(vectors.astype(np.float16))}
    unfinished = file.with_suffix(f".{os.getpid()}.part")
    save_file(half, unfinished, metadata={"revision": revision, "sha256": _digest(half[_TENSOR])})
    unfinished.replace(file)


def _read(file: Path, revision: str) -> Array | None:
    try:
        with safe_open(file, framework="numpy") as stored:
            said = stored.metadata() or {}
            half = stored.get_tensor(_TENSOR)
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError):
        log.warning("distillation.unreadable", file=str(file))
        return None
    if said.get("revision") != revision or said.get("sha256") != _digest(half):
        log.warning("distillation.damaged", file=str(file))
        return None
    found: Array = half.astype(np.float32)
    return found


def _digest(half: np.typing.NDArray[np.float16]) -> str:
    return hashlib.sha256(half.tobytes()).hexdigest()
