"""The senders that can be signed for, as data: `senders.yaml` says what each key means."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

ANY = "generic"
"""What tools without an entry of their own do."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Proof(_Data):
    """One way to prove a delivery, with the headers that show it.

    Attributes:
        begins: What a secret begins with for this to be the way; the rest of it is the key.
        key: How the key is written: text is taken as it is, base64 decoded.
        algorithm: Of the HMAC; or ed25519, where the key is a private one.
        signed: What is signed.
        encoding: How the signature is written.
        headers: With {signature}, {secret} or {basic} in them.
    """

    begins: str = ""
    key: Literal["text", "base64"] = "text"
    algorithm: Literal["sha1", "sha256", "sha512", "ed25519"] = "sha256"
    signed: str = "{body}"
    encoding: Literal["hex", "base64"] = "hex"
    headers: Mapping[str, str]


class Example(_Data):
    """A small body, with placeholders in it."""

    type: str
    body: Mapping[str, Any]


class Sender(_Data):
    """How one sender signs and what it sends along."""

    headers: Mapping[str, str]
    proofs: tuple[Proof, ...] = Field(min_length=1)
    fresh: Mapping[str, str] = {}
    names: Mapping[str, str] = {}
    other_name: str = ""
    example: Example | None = None

    def proof_for(self, secret: str) -> Proof:
        """The way that a secret asks for.

        Raises:
            ValueError: The sender has no secrets of this kind.
        """
        for proof in self.proofs:
            if secret.startswith(proof.begins):
                return proof
        raise ValueError(f"the secret begins with none of {', '.join(proof.begins for proof in self.proofs)}")


@cache
def senders() -> Mapping[str, Sender]:
    """Every sender that is known, by its route's name."""
    tree = yaml.safe_load(files("webhook_ops.samples").joinpath("senders.yaml").read_text(encoding="utf-8"))
    return {tool: Sender.model_validate(entry) for tool, entry in tree.items()}


def sender(tool: str) -> Sender:
    """The sender behind a route; one that signs generically where it has no entry."""
    known = senders()
    return known.get(tool, known[ANY])
