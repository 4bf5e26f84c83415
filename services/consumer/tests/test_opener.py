"""Events of a batch are opened each on its own account, whatever their neighbours are."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.entry import Cause, Dead, Entry
from webhook_consumer.opener import Opener
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import HEADER_BYTES, Keyring

MASTER = SecretStr("0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
PAYLOAD = b'{"action":"opened","number":42,"title":"Retry the upload"}' * 20
# Where an envelope names its dictionary.
DICTIONARY_AT = HEADER_BYTES - 24


async def keyring_of(redis: Client, *tenants: str) -> Keyring:
    keyring = Keyring(redis, MASTER)
    await keyring.prepare(tenants)
    return keyring


def entry(keyring: Keyring, event_id: str, tenant: str = "acme", **how: str | bool) -> Entry:
    event = WebhookEvent(id=event_id, tenant=tenant, tool="github", payload=PAYLOAD)
    sealed = keyring.seal(tenant, event.SerializeToString(), "event", event_id, **how)  # type: ignore[arg-type]  # of seal's own types
    fields = {"id": event_id, "tenant": tenant, "tool": "github", "schema": "1", "sealed": sealed}
    return Entry(b"1-0", {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()})


def flipped(one: Entry, at: int) -> Entry:
    sealed = bytearray(one.fields[b"sealed"])
    sealed[at] ^= 1
    return one._replace(fields={**one.fields, b"sealed": bytes(sealed)})


async def test_tenants_data_keys_and_dictionaries_mix(redis: Client) -> None:
    one, other = await keyring_of(redis, "acme", "globex"), await keyring_of(redis, "acme", "globex")
    batch = [
        entry(keyring, f"{tenant}-{number}-{dictionary}", tenant, dictionary=dictionary, fresh=number == 1)
        for number in range(3)
        for tenant in ("acme", "globex")
        for keyring in (one, other)
        for dictionary in ("", "github")
    ]
    opened = await Opener(await keyring_of(redis)).open(batch)
    assert [
        (event.id, event.tenant, event.payload) for event in opened if isinstance(event, WebhookEvent)
    ] == [(one.text(b"id"), one.text(b"tenant"), PAYLOAD) for one in batch]


@pytest.mark.parametrize("at", [5, 20, DICTIONARY_AT, DICTIONARY_AT + 8, HEADER_BYTES - 1, -1])
async def test_a_damaged_one_is_dead_and_its_neighbours_are_not(redis: Client, at: int) -> None:
    keyring = await keyring_of(redis, "acme")
    good = entry(keyring, "1", dictionary="github")
    moved = good._replace(fields={**good.fields, b"id": b"2"})
    first, *bad, last = await Opener(keyring).open([good, flipped(good, at), moved, good])
    assert isinstance(first, WebhookEvent)
    assert isinstance(last, WebhookEvent)
    assert all(isinstance(one, Dead) and one.cause is Cause.UNDECODABLE for one in bad[1:])
    # A key id that nobody has may still come to be known; a dictionary's is not believed before it is proven.
    assert not isinstance(bad[0], WebhookEvent)
    assert at == 20 or isinstance(bad[0], Dead)


async def test_keys_that_were_made_after_the_last_look_are_found(redis: Client) -> None:
    reader = await keyring_of(redis, "acme", "globex")
    known = [entry(reader, "1"), entry(reader, "2", "globex")]
    await redis.delete("tenantkey:{acme}", "tenantkey:{globex}")
    elsewhere = await keyring_of(redis, "acme", "globex")
    fresh = [entry(elsewhere, "3"), entry(elsewhere, "4", "globex"), entry(elsewhere, "5")]
    opened = await Opener(reader).open([known[0], *fresh, known[1]])
    assert [one.id for one in opened if isinstance(one, WebhookEvent)] == ["1", "3", "4", "5", "2"]


async def test_what_was_sealed_is_the_event_that_the_entry_names(redis: Client) -> None:
    keyring = await keyring_of(redis, "acme")
    event = WebhookEvent(id="other", tenant="acme", payload=PAYLOAD)
    sealed = keyring.seal("acme", event.SerializeToString(), "event", "1")
    fields = {b"id": b"1", b"tenant": b"acme", b"schema": b"1", b"sealed": sealed}
    (opened,) = await Opener(keyring).open([Entry(b"1-0", fields)])
    assert isinstance(opened, Dead)
