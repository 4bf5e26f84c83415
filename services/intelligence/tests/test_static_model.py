"""The distilled model: made once, whole or not at all, fast, and never mixed up with its teacher."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from webhook_intelligence.providers.bert import Bert, Shape
from webhook_intelligence.providers.checkpoint import packaged_model, read
from webhook_intelligence.providers.distillation import distilled
from webhook_intelligence.providers.protocol import EmbeddingModel
from webhook_intelligence.providers.static import StaticEmbeddings

REVISION = "cafe"


@pytest.fixture(scope="module")
def network() -> tuple[Shape, Tokenizer, Bert]:
    """The network with a short vocabulary, so that distilling takes a second."""
    shape, tokenizer, bert = read(packaged_model())
    tokenizer.no_truncation()
    return shape, tokenizer, bert


class Short:
    """A tokeniser that knows the first words only."""

    def __init__(self, whole: Tokenizer, size: int) -> None:
        self._whole = whole
        self._size = size

    def get_vocab_size(self) -> int:
        return self._size

    def token_to_id(self, token: str) -> int:
        return int(self._whole.token_to_id(token))


def make(network: tuple[Shape, Tokenizer, Bert], directory: Path, size: int = 24) -> np.ndarray:
    _, tokenizer, bert = network
    return distilled(bert, Short(tokenizer, size), REVISION, directory, threads=2)  # type: ignore[arg-type]  # a part of it


def test_made_once_and_read_ever_after(network: tuple[Shape, Tokenizer, Bert], tmp_path: Path) -> None:
    made = make(network, tmp_path)
    (file,) = tmp_path.iterdir()
    began = time.perf_counter()
    again = make(network, tmp_path)
    assert time.perf_counter() - began < 0.2
    assert np.abs(made - again).max() < 1e-2
    assert file.name.endswith(f"{REVISION}.safetensors")


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_file_is_made_anew(
    network: tuple[Shape, Tokenizer, Bert], tmp_path: Path, damage: bytes | None
) -> None:
    made = make(network, tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 0xFF
    file.write_bytes(bytes(content) if damage is None else damage)
    assert np.abs(make(network, tmp_path) - made).max() < 1e-6
    assert file.read_bytes() != content


async def test_means_of_tokens(network: tuple[Shape, Tokenizer, Bert]) -> None:
    shape, tokenizer, _ = network
    vectors = np.random.default_rng(1).standard_normal((tokenizer.get_vocab_size(), 8)).astype(np.float32)
    model = EmbeddingModel("local", "static", "r", 8)
    static = StaticEmbeddings(vectors, tokenizer, model, 1)
    texts = [
        "red shoes",
        "shoes red",
        "blue",
        "\x00",
        "é東🙂",
        "word " * 20_000,
        *(f"text {i}" for i in range(3000)),
    ]
    found = static.encode(texts)
    expected = vectors[[tokenizer.token_to_id("red"), tokenizer.token_to_id("shoes")]].sum(axis=0)
    assert found[0].vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)
    assert (found[0].vector == found[1].vector).all()
    assert np.abs(np.linalg.norm([one.vector for one in found], axis=1) - 1).max() < 1e-4
    (alone,) = static.encode([texts[-1]])
    assert np.abs(alone.vector - found[-1].vector).max() < 1e-6
    assert shape.hidden_size == 384
    static.close()
