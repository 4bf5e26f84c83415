"""The numpy forward pass is the model, not something like it."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_intelligence.providers import bert
from webhook_intelligence.providers.checkpoint import WeightsError
from webhook_intelligence.providers.local import LocalEmbeddings
from webhook_intelligence.providers.protocol import Embedding

FAR = 1e9


async def vectors(local: LocalEmbeddings, texts: list[str]) -> np.ndarray:
    found = await local.embed(texts, deadline=FAR)
    return np.stack([result.vector for result in found if isinstance(result, Embedding)])


async def test_agrees_with_the_reference_implementation(local: LocalEmbeddings) -> None:
    # Cosines as sentence-transformers on torch gives them; first numbers as a plain, padded implementation
    # with the tanh activation does.
    a, b, c = await vectors(
        local, ["pod crashed with out of memory", "container was OOM killed", "invoice paid"]
    )
    assert float(a @ b) == pytest.approx(0.398, abs=1e-3)
    assert float(a @ c) == pytest.approx(-0.026, abs=1e-3)
    assert a[:4] == pytest.approx([0.12973, 0.00284, 0.03257, 0.05259], abs=1e-3)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("the build is broken on main", "continuous integration build failed", "new logo for the website"),
        ("user cannot log in", "authentication problem", "database disk is full"),
        ("bump lodash from 4.17.20 to 4.17.21", "dependency update", "incident: payments are down"),
        ("fix typo in README", "documentation correction", "memory leak in the worker"),
        ("rollback of the deployment", "revert the release", "team lunch on Friday"),
    ],
)
async def test_what_means_the_same_is_nearer(local: LocalEmbeddings, text: str, near: str, far: str) -> None:
    a, b, c = await vectors(local, [text, near, far])
    assert a @ b > a @ c + 0.1


async def test_a_vector_does_not_depend_on_its_neighbours(local: LocalEmbeddings) -> None:
    texts = ["short", "a text of some more words than that", "x " * 150, "short", "été à 東京 🙂"] * 20
    alone = np.concatenate([await vectors(local, [text]) for text in texts[:5]] * 20)
    together = await vectors(local, texts)
    assert np.abs(alone - together).max() < 1e-4
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-5


async def test_concurrent_calls_do_not_disturb_each_other(local: LocalEmbeddings) -> None:
    texts = [f"event number {i}" for i in range(64)]
    expected = await vectors(local, texts)
    for found in await asyncio.gather(*(vectors(local, texts) for _ in range(6))):
        assert np.abs(found - expected).max() < 1e-5


async def test_long_texts_are_read_in_pieces_and_pooled(local: LocalEmbeddings) -> None:
    beginning, end = "the invoice of march was paid. " * 40, "the pod ran out of memory. " * 40
    texts = ["a few words", beginning + end, "many words " * 2000, beginning, end]
    found = await local.embed(texts, deadline=FAR)
    good = [result for result in found if isinstance(result, Embedding)]
    assert [(one.truncated, one.pieces) for one in good[:3]] == [(False, 1), (False, 3), (True, 8)]
    _, whole, _, first, second = (one.vector for one in good)
    # Neither half is lost.
    assert whole @ first > 0.6
    assert whole @ second > 0.6
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-5)


def test_gelu_is_that_of_the_error_function() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    expected = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    found = x.copy()
    with np.errstate(over="ignore"):
        bert.gelu(found, np.empty_like(x), np.empty_like(x))
    assert np.abs(found - expected).max() < 5e-6


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=5))
def test_any_text_has_a_unit_vector(local: LocalEmbeddings, texts: list[str]) -> None:
    found = asyncio.run(vectors(local, [text.encode("utf-8", "replace").decode() for text in texts]))
    assert found.shape == (len(texts), 384)
    assert np.isfinite(found).all()
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-4


async def test_binary_looking_text(local: LocalEmbeddings) -> None:
    found = await vectors(local, ["\x00\x01\x02\x00", "\ufffd\ufffe\uffff", "\u202e\u200b"])
    assert np.isfinite(found).all()


def test_missing_weights_are_said_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="it needs model"):
        LocalEmbeddings.load(path=str(tmp_path))


def test_wrong_dimensions_are_refused() -> None:
    with pytest.raises(WeightsError, match="gives 384"):
        LocalEmbeddings.load(dimensions=1536)
