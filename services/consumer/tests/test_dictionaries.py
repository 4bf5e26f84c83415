"""An event whose dictionary is not here yet is opened once it is, and never opened to anything else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.entry import Entry, Failure, Retry
from webhook_consumer.opener import Opener
from webhook_shared import compression
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.dictionaries.store import Entry as Known
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring

MASTER = SecretStr("0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
PAYLOAD = b'{"pipeline_run_identifier":1,"triggered_by_login":"mona","finished_successfully":true}'
# Any bytes serve as a dictionary: what has no tables is taken as text that came before.
DICTIONARY = PAYLOAD * 4
ONE = compression.identity(DICTIONARY)


def forget_here() -> None:
    """What this process has learned, as if it had just started."""
    compression._known().pop(ONE, None)
    compression._workspace.decompressors.pop(ONE, None)


@pytest.fixture(autouse=True)
def _leaves_nothing_known() -> Iterator[None]:
    yield
    forget_here()


@pytest.fixture
async def entry(redis: Client) -> Entry:
    """An event that was sealed elsewhere with a dictionary of its own."""
    elsewhere = Keyring(redis, MASTER, Dictionaries(redis, "events", spread_s=0))
    await elsewhere.prepare(["acme"])
    known = Known("events", "builder", 0, "", 0, 0, len(DICTIONARY), 200, 9.0, 5.0)
    assert await elsewhere.dictionaries.adopt("acme", DICTIONARY, known, None, elsewhere)
    event = WebhookEvent(id="e1", tenant="acme", tool="builder", payload=PAYLOAD)
    sealed = elsewhere.seal("acme", event.SerializeToString(), "event", "e1", dictionary="builder")
    forget_here()
    fields = {b"id": b"e1", b"tenant": b"acme", b"tool": b"builder", b"schema": b"1", b"sealed": sealed}
    return Entry(b"1-0", fields)


async def test_it_is_loaded_when_it_is_needed(redis: Client, entry: Entry) -> None:
    opener = Opener(Keyring(redis, MASTER))
    (opened,) = await opener.open([entry])
    assert isinstance(opened, WebhookEvent)
    assert opened.payload == PAYLOAD


async def test_one_that_came_to_be_after_the_last_look_is_loaded_at_once(redis: Client, entry: Entry) -> None:
    keyring = Keyring(redis, MASTER)
    await keyring.prepare(["acme"])
    forget_here()
    (opened,) = await Opener(keyring).open([entry])
    assert isinstance(opened, WebhookEvent)


async def test_one_that_is_lost_is_a_failure_that_may_heal(redis: Client, entry: Entry) -> None:
    held = await redis.dump(f"dictionary:{{acme}}:{ONE.hex()}")
    assert held is not None
    await redis.delete(f"dictionary:{{acme}}:{ONE.hex()}")
    opener = Opener(Keyring(redis, MASTER))
    (opened,) = await opener.open([entry])
    assert isinstance(opened, Retry)
    assert opened.failure is Failure.UNREADABLE
    assert ONE.hex() in opened.detail
    await redis.restore(f"dictionary:{{acme}}:{ONE.hex()}", 0, held)
    (opened,) = await opener.open([entry])
    assert isinstance(opened, WebhookEvent)
