"""The forward pass of a BERT sentence encoder with mean pooling, on numpy alone.

Texts are never padded: the tokens of a batch lie one after the other in a single matrix, every dense
layer is one product over all of them, and only attention looks at texts one by one (those of equal length
together). So a vector does not depend on its neighbours, and no time goes into padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# Rows of the feed-forward layer at a time: its activations then stay in the second-level cache.
FEED_FORWARD_ROWS = 96
# Scores of attention at a time, per head: bounds memory where many texts have the same length.
ATTENTION_SCORES = 64 * 1024

# x * sigmoid(p(x)) with this odd polynomial p differs from x * normal_cdf(x) by less than 4e-6 everywhere
# (least maximal error, fitted on 0..6.5; the usual tanh form is off by 5e-4). numpy has no erf.
_GELU = tuple(
    np.float32(c) for c in (-1.59565627, -0.0729375804, 0.000249722207, 6.11622303e-05, -2.23817723e-06)
)


@dataclass(frozen=True)
class Shape:
    """The sizes of a model, as its `config.json` names them."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    layer_norm_eps: float


@dataclass(frozen=True)
class _Norm:
    scale: Array
    shift: Array


@dataclass(frozen=True)
class _Dense:
    """Weights stored (inputs, outputs) and contiguous."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x @ self.weight
        y += self.bias
        return y


@dataclass(frozen=True)
class _Layer:
    attention_input: _Dense  # query, key and value side by side
    attention_output: _Dense
    attention_norm: _Norm
    intermediate: _Dense
    output: _Dense
    output_norm: _Norm


class Bert:
    """A loaded model. `encode` may run in several threads at once."""

    def __init__(self, shape: Shape, weights: Mapping[str, Array]) -> None:
        """Take the tensors of a checkpoint, named as BERT names them.

        Raises:
            KeyError: A tensor is missing.
        """
        self.shape = shape
        self._words = weights["embeddings.word_embeddings.weight"]
        self._positions = (
            weights["embeddings.position_embeddings.weight"]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm = _norm(weights, "embeddings.LayerNorm")
        self._layers = [_layer(weights, i, shape) for i in range(shape.num_hidden_layers)]

    @property
    def positions(self) -> int:
        """Most tokens of one text."""
        return int(self._positions.shape[0])

    def encode(self, texts: Sequence[Sequence[int]]) -> Array:
        """Unit vectors of tokenised texts.

        Args:
            texts: Token ids, each at least one; equal lengths next to each other are faster.

        Returns:
            (texts, hidden size).
        """
        lengths = np.array([len(text) for text in texts])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        ids = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
        x = self._words[ids]
        x += self._positions[np.arange(len(ids)) - np.repeat(starts, lengths)]
        self._normalise(x, self._norm)
        groups = _groups(lengths.tolist())
        with np.errstate(over="ignore", under="ignore"):  # exp of a large number: sigmoid 0, as it should be
            for layer in self._layers:
                self._attend(x, layer, groups)
                self._feed_forward(x, layer)
        # The mean's division falls out in the normalisation.
        pooled: Array = np.add.reduceat(x, starts, axis=0)
        pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled

    def _attend(self, x: Array, layer: _Layer, groups: list[tuple[int, int, int]]) -> None:
        heads, width = (
            self.shape.num_attention_heads,
            self.shape.hidden_size // self.shape.num_attention_heads,
        )
        mixed = layer.attention_input(x)
        heard = np.empty_like(x)
        for start, count, length in groups:
            end = start + count * length
            query, key, value = (
                mixed[start:end].reshape(count, length, 3, heads, width).transpose(2, 0, 3, 1, 4)
            )
            scores = query @ key.swapaxes(-1, -2)
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            out = heard[start:end].reshape(count, length, heads, width).transpose(0, 2, 1, 3)
            np.matmul(scores, value, out=out)
            # Dividing the sums is cheaper than dividing the scores.
            out /= scores.sum(-1, keepdims=True)
        x += layer.attention_output(heard)
        self._normalise(x, layer.attention_norm)

    def _feed_forward(self, x: Array, layer: _Layer) -> None:
        rows = min(FEED_FORWARD_ROWS, len(x))
        inner, square, power = (np.empty((rows, self.shape.intermediate_size), np.float32) for _ in range(3))
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            n = len(part)
            np.matmul(part, layer.intermediate.weight, out=inner[:n])
            inner[:n] += layer.intermediate.bias
            gelu(inner[:n], square[:n], power[:n])
            part += inner[:n] @ layer.output.weight
        x += layer.output.bias
        self._normalise(x, layer.output_norm)

    def _normalise(self, x: Array, norm: _Norm) -> None:
        x -= x.mean(1, keepdims=True)
        variance = np.einsum("ij,ij->i", x, x)
        variance /= np.float32(x.shape[1])
        variance += np.float32(self.shape.layer_norm_eps)
        x /= np.sqrt(variance)[:, None]
        x *= norm.scale
        x += norm.shift


def gelu(x: Array, square: Array, power: Array) -> None:
    """Replace x by x * normal_cdf(x), to within 4e-6; the other two are scratch of the same shape."""
    np.multiply(x, x, out=square)
    np.multiply(square, _GELU[4], out=power)
    for coefficient in (_GELU[3], _GELU[2], _GELU[1]):
        power += coefficient
        power *= square
    power += _GELU[0]
    power *= x
    np.exp(power, out=power)
    power += np.float32(1)
    x /= power


def _groups(lengths: list[int]) -> list[tuple[int, int, int]]:
    """Runs of texts of equal length as (first token, texts, tokens per text)."""
    found, start = [], 0
    for length, run in groupby(lengths):
        left = len(list(run))
        at_once = max(1, ATTENTION_SCORES // (length * length))
        while left:
            count = min(left, at_once)
            found.append((start, count, length))
            start += count * length
            left -= count
    return found


def _layer(weights: Mapping[str, Array], index: int, shape: Shape) -> _Layer:
    prefix = f"encoder.layer.{index}."
    # The scale of the scores, 1 / sqrt(width of a head), goes into the query's weights once and for all.
    scale = np.float32((shape.hidden_size // shape.num_attention_heads) ** -0.5)
    parts = [
        (weights[f"{prefix}attention.self.{name}.weight"], weights[f"{prefix}attention.self.{name}.bias"])
        for name in ("query", "key", "value")
    ]
    parts[0] = (parts[0][0] * scale, parts[0][1] * scale)
    return _Layer(
        attention_input=_Dense(
            np.ascontiguousarray(np.concatenate([weight for weight, _ in parts]).T),
            np.concatenate([bias for _, bias in parts]),
        ),
        attention_output=_dense(weights, f"{prefix}attention.output.dense"),
        attention_norm=_norm(weights, f"{prefix}attention.output.LayerNorm"),
        intermediate=_dense(weights, f"{prefix}intermediate.dense"),
        output=_dense(weights, f"{prefix}output.dense"),
        output_norm=_norm(weights, f"{prefix}output.LayerNorm"),
    )


def _dense(weights: Mapping[str, Array], name: str) -> _Dense:
    return _Dense(np.ascontiguousarray(weights[f"{name}.weight"].T), weights[f"{name}.bias"])


def _norm(weights: Mapping[str, Array], name: str) -> _Norm:
    return _Norm(weights[f"{name}.weight"], weights[f"{name}.bias"])
