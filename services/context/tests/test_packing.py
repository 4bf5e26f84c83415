"""Packs: what goes in comes out, and nothing else passes for it."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest
from webhook.context.v1.pack_pb2 import Pack, PackedEvent
from webhook_context.errors import TooLarge
from webhook_context.packs import packing
from webhook_context.packs.packing import DIGEST_BYTES, Packer, digests
from webhook_shared import redis as store
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError, Undecodable, UnknownFormat

from services.context.tests.conftest import MASTER_KEY


@pytest.fixture
async def keyring(redis: store.Client) -> Keyring:
    keyring = Keyring(redis, MASTER_KEY)
    await keyring.prepare(["acme", "other"])
    return keyring


def _pack(**changed: Any) -> Pack:
    body = json.dumps({f"{n}_url": f"https://api.github.com/repos/octo/hello/{n}" for n in range(90)})
    events = [PackedEvent(event_id=f"e{n}", record=b"said", payload=body.encode()) for n in range(5)]
    return Pack(**{"tenant": "acme", "context_id": "c", "tool": "github", "events": events, **changed})


@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("level", [1, 9])
def test_what_goes_in_comes_out(keyring: Keyring, codec: Literal["zstd", "gzip", "none"], level: int) -> None:
    packed = Packer(keyring, codec, level).pack(_pack())
    assert Packer(keyring).open("acme", "c", packed.sealed) == _pack()
    assert packed.checksum == hashlib.sha256(packed.sealed).hexdigest()
    assert packed.content_size == _pack().ByteSize()
    if codec != "none":
        assert len(packed.sealed) < packed.content_size / 8


def test_every_changed_byte_is_noticed(keyring: Keyring) -> None:
    packer = Packer(keyring)
    sealed = packer.pack(Pack(tenant="acme", context_id="c")).sealed
    for at in range(len(sealed)):
        with pytest.raises(EnvelopeError):
            packer.open("acme", "c", sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :])
    for length in range(0, len(sealed), 7):
        with pytest.raises(EnvelopeError):
            packer.open("acme", "c", sealed[:length])


def test_no_pack_opens_for_another(keyring: Keyring) -> None:
    packer = Packer(keyring)
    sealed = packer.pack(_pack()).sealed
    for tenant, context_id in (("acme", "d"), ("other", "c")):
        with pytest.raises(Undecodable):
            packer.open(tenant, context_id, sealed)


def test_newer_formats_are_told_apart_from_damage(keyring: Keyring) -> None:
    sealed = Packer(keyring).pack(_pack()).sealed
    with pytest.raises(UnknownFormat):
        Packer(keyring).open("acme", "c", b"WHP2" + sealed[4:])


Sealed = Callable[[int, int, bytes], Awaitable[bytes]]


@pytest.mark.parametrize(
    ("codec", "size", "body"),
    [
        (2, 1000, gzip.compress(bytes(50_000_000), mtime=0)),
        (2, 10**12, gzip.compress(b"x", mtime=0)),
        (1, 10**12, b"x"),
        (1, 10, b"no frame"),
        (2, 10, b"no gzip"),
        (0, 10, b"less"),
        (9, 4, b"body"),
    ],
)
def test_bombs_and_lies_are_refused(keyring: Keyring, codec: int, size: int, body: bytes) -> None:
    head = struct.pack(">B8sQ", codec, bytes(8), size)
    envelope = keyring.seal("acme", head + body, "pack", bytes(16).hex())
    with pytest.raises(EnvelopeError):
        Packer(keyring).open("acme", "c", b"WHP1\0\4acme" + bytes(16) + envelope)


def test_what_is_too_large_is_not_packed(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LARGEST_CONTENT_BYTES", 1000)
    with pytest.raises(TooLarge):
        Packer(keyring).pack(_pack())


def test_digests_are_those_of_the_script() -> None:
    assert len(digests(["a", "b"])) == 2 * DIGEST_BYTES
    assert digests(["a"]) == hashlib.sha1(b"a").digest()[:DIGEST_BYTES]
