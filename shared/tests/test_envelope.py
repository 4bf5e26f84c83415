"""Sealed bytes open for whom they were sealed, whole, or not at all."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from webhook_shared.redis import Client
from webhook_shared.sealing import envelope
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError, Undecodable, UnknownKey, UnusableKey

MASTER = SecretStr("0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
CONTENT = b'{"action":"opened","number":42,"title":"Retry the upload"}' * 20


@pytest.fixture
async def keyring(redis: Client) -> Keyring:
    keyring = Keyring(redis, MASTER)
    await keyring.prepare(["acme", "globex"])
    return keyring


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("content", [b"", b"x", CONTENT, os.urandom(100_000)])
async def test_what_was_sealed_opens(keyring: Keyring, content: bytes, fresh: bool) -> None:
    sealed = keyring.seal("acme", content, "event", "1", fresh=fresh)
    assert keyring.open("acme", sealed, "event", "1") == content


async def test_content_is_not_readable_in_sealed_bytes(keyring: Keyring) -> None:
    assert b"Retry" not in keyring.seal("acme", CONTENT, "event", "1")


async def test_every_single_flipped_bit_is_noticed(keyring: Keyring) -> None:
    sealed = keyring.seal("acme", b"abc" * 40, "event", "1")
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(EnvelopeError):
            keyring.open("acme", bytes(damaged), "event", "1")


async def test_every_truncation_is_noticed(keyring: Keyring) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    for length in range(len(sealed)):
        with pytest.raises(Undecodable):
            keyring.open("acme", sealed[:length], "event", "1")


@pytest.mark.parametrize(
    ("tenant", "binding"),
    [
        ("globex", ("event", "1")),
        ("acme", ("event", "2")),
        ("acme", ("event1",)),
        ("acme", ("event", "1", "")),
    ],
)
async def test_it_opens_for_nobody_and_nothing_else(
    keyring: Keyring, tenant: str, binding: tuple[str, ...]
) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    with pytest.raises(EnvelopeError):
        keyring.open(tenant, sealed, *binding)


async def test_another_process_opens_it(redis: Client, keyring: Keyring) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    other = Keyring(redis, MASTER)
    await other.prepare(["acme"])
    assert other.open("acme", sealed, "event", "1") == CONTENT


async def test_another_master_key_does_not(redis: Client, keyring: Keyring) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    other = Keyring(redis, SecretStr(MASTER.get_secret_value()[::-1]))
    with pytest.raises(UnusableKey, match="is needed"):
        await other.prepare(["acme"])
    with pytest.raises(UnusableKey):
        other.open("acme", sealed, "event", "1")


async def test_a_flushed_key_table_is_learnt_again_from_whoever_knows_it(
    redis: Client, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    await redis.flushall()
    monkeypatch.setattr(envelope, "KEY_TABLE_AGE_S", -1.0)
    await keyring.prepare(["acme"])
    other = Keyring(redis, MASTER)
    await other.prepare(["acme"])
    assert other.open("acme", sealed, "event", "1") == CONTENT


async def test_a_key_made_while_the_table_was_gone_does_not_orphan_the_older_one(
    redis: Client, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keyring.seal("acme", CONTENT, "event", "1")
    await redis.flushall()
    stranger = Keyring(redis, MASTER)
    await stranger.prepare(["acme"])
    with pytest.raises(UnknownKey):
        stranger.open("acme", before, "event", "1")
    monkeypatch.setattr(envelope, "KEY_TABLE_AGE_S", -1.0)
    await keyring.prepare(["acme"])
    await stranger.prepare(["acme"])
    assert stranger.open("acme", before, "event", "1") == CONTENT
    after = keyring.seal("acme", CONTENT, "event", "2")
    assert stranger.open("acme", after, "event", "2") == CONTENT


async def test_destroyed_keys_stay_destroyed(
    redis: Client, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = keyring.seal("acme", CONTENT, "event", "1")
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")
    monkeypatch.setattr(envelope, "KEY_TABLE_AGE_S", -1.0)
    with pytest.raises(UnknownKey):
        await keyring.prepare(["acme"])
    with pytest.raises(UnknownKey):
        keyring.open("acme", sealed, "event", "1")


@given(st.binary(max_size=400))
async def test_no_bytes_make_it_raise_anything_else(junk: bytes) -> None:
    keyring = Keyring.__new__(Keyring)
    keyring._known = {}
    keyring._current = {}
    keyring._unwrapped = keyring._unwrap  # type: ignore[assignment]
    for candidate in (junk, envelope.MAGIC + b"\x01\x01" + junk):
        with pytest.raises(EnvelopeError):
            keyring.open("acme", candidate, "event", "1")


@pytest.mark.parametrize("weak", ["", "short", "a" * 64])
async def test_a_weak_master_key_is_refused(redis: Client, weak: str) -> None:
    with pytest.raises(ValueError, match="ENCRYPTION_MASTER_KEY"):
        Keyring(redis, SecretStr(weak))
