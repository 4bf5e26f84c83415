"""Events are sealed with the dictionary that was trained on their like."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.security.v1.admission_pb2 import Delivery, Header, Producer
from webhook.security.v1.admission_service_pb2 import AdmitRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook.security.v1.security_admin_service_pb2 import ListDictionariesRequest, TrainDictionaryRequest
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_security.event_samples import rewritten
from webhook_shared import compression
from webhook_shared.dictionaries.scrubbing import Scrubber, learned
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import connect
from webhook_shared.sealing.envelope import HEADER_BYTES, Keyring
from webhook_shared.settings import RedisSection

from services.security.tests.conftest import MASTER_KEY

AT = slice(HEADER_BYTES - 24, HEADER_BYTES - 16)


@pytest.fixture(autouse=True)
def _leaves_nothing_known() -> Iterator[None]:
    before = set(compression._known())
    yield
    for one in set(compression._known()) - before:
        compression._known().pop(one)
        compression._workspace.decompressors.pop(one, None)


def body(seed: int) -> bytes:
    chance = random.Random(seed)
    word = lambda: "".join(chance.choices(string.ascii_lowercase, k=9))  # noqa: E731
    steps = [
        {"step_identifier": word(), "duration_milliseconds": chance.getrandbits(20), "retries_left": 3}
        for _ in range(4)
    ]
    return json.dumps({"type": "run.finished", "triggered_by": word(), "pipeline_steps": steps}).encode()


def delivery(seed: int) -> Delivery:
    producer = Producer(key_id="ci", type="run.finished", delivery_id=f"d{seed}")
    headers = [Header(name="content-type", value=b"application/json")]
    return Delivery(
        tenant="acme", tool="builder", method="POST", body=body(seed), headers=headers, producer=producer
    )


async def test_a_source_gets_a_dictionary_and_is_sealed_with_it(service: Any, valkey: RedisSection) -> None:
    redis = connect(valkey)
    async with service(valkey, dictionaries={"min_samples": 20, "size": 16_384}) as channel:
        door, admin = AdmissionServiceStub(channel), SecurityAdminServiceStub(channel)
        request = TrainDictionaryRequest(tenant="acme", name="builder")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await admin.TrainDictionary(request)
        assert from_rpc_error(refused.value).reason == "SAMPLES_TOO_FEW"
        deliveries = [delivery(number) for number in range(30)]
        before = (await door.Admit(AdmitRequest(deliveries=deliveries))).verdicts[0].event
        told = (await admin.TrainDictionary(request)).training
        assert told.adopted.sample_count == 30
        assert told.ratio > 1.5 * told.plain_ratio
        one = told.adopted.id
        found = json.loads(await redis.hget("dictionaries:{acme}", one) or b"")
        await redis.hset("dictionaries:{acme}", one, json.dumps(found | {"from_ms": 0}))
    async with service(valkey) as channel:
        sealed = (
            (await AdmissionServiceStub(channel).Admit(AdmitRequest(deliveries=[delivery(999)])))
            .verdicts[0]
            .event
        )
        asked = ListDictionariesRequest(tenant="acme")
        listed = (await SecurityAdminServiceStub(channel).ListDictionaries(asked)).dictionaries
        assert [(each.id, each.in_use) for each in listed if each.tenant] == [(one, True)]
    assert before.sealed[AT] == bytes(8)
    assert sealed.sealed[AT].hex() == one
    assert len(sealed.sealed) < len(before.sealed)
    keyring = Keyring(redis, SecretStr(MASTER_KEY))
    await keyring.prepare(["acme"])
    opened = keyring.open("acme", sealed.sealed, "event", sealed.id)
    assert WebhookEvent.FromString(opened).payload == body(999)
    await redis.aclose()


def test_what_is_trained_on_says_nothing_of_anybody() -> None:
    event = WebhookEvent(
        id="a-1",
        tenant="acme",
        tool="builder",
        type="run.finished",
        headers={"user-agent": "grace-hoppers-laptop"},
        payload=b'{"type":"run","login":"grace-hopper","token":"ghp_0123456789abcdef"}',
        delivery_id="grace-1",
    )
    sample = event.SerializeToString()
    made = rewritten(sample, Scrubber(learned([sample] * 9, rewritten), "seed"))
    for planted in (b"grace", b"hopper", b"ghp_0", b"acme", b"laptop"):
        assert planted not in made
    assert json.loads(WebhookEvent.FromString(made).payload)["type"] == "run"
    assert list(WebhookEvent.FromString(made).headers) == ["user-agent"]
