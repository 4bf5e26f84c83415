"""A secret is rotated while webhooks come in: what was valid when it was signed gets in."""

from __future__ import annotations

import asyncio

import pytest
from webhook.security.v1.security_admin_service_pb2 import (
    ListSecretsRequest,
    RetireSecretRequest,
    RotateSecretRequest,
)

from tests.patience import eventually
from tests.senders import AnyTool
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOOL = "rotating"
AT_ONCE = 4


async def test_a_rotation_refuses_nothing_valid_at_the_edge(house: House) -> None:
    administration = house.operator.security_admin
    sender = AnyTool(TOOL, house.environ["TEST_ROTATING_SECRET"])
    statuses: list[int] = []
    stop = asyncio.Event()

    async def stream() -> None:
        while not stop.is_set():
            statuses.append((await house.post(sender.deliver("build", {"n": len(statuses)}))).status)

    async def more(number: int) -> None:
        wanted = len(statuses) + number
        while len(statuses) < wanted:
            await asyncio.sleep(0.01)

    streams = [asyncio.create_task(stream()) for _ in range(AT_ONCE)]
    await more(20)
    request = RotateSecretRequest(tenant="default", tool=TOOL)
    request.overlap.FromSeconds(3600)
    made = await administration.RotateSecret(request)
    assert made.replicas_behind == 0
    old = AnyTool(TOOL, sender.secret)
    sender = AnyTool(TOOL, made.secret)
    await more(20 + AT_ONCE)
    # What the sender queued before still gets in, until the operator says that nothing more will come.
    assert (await house.post(old.deliver("build", {}))).status == 202
    (ending,) = made.ending
    retire = RetireSecretRequest(tenant="default", tool=TOOL, key_id=ending.secret.key_id)
    await administration.RetireSecret(retire)
    await more(20)
    stop.set()
    await asyncio.gather(*streams)
    assert set(statuses) == {202}
    assert (await house.post(old.deliver("build", {}))).status == 401

    async def counted() -> None:
        listed = await administration.ListSecrets(ListSecretsRequest(tenant="default", tool=TOOL))
        uses = {status.secret.key_id: (status.live, status.use_count) for status in listed.secrets}
        assert set(uses) == {made.added.secret.key_id, ending.secret.key_id}
        assert sum(count for _, count in uses.values()) == len(statuses) + 1
        assert {live: count > 0 for live, count in uses.values()} == {True: True, False: True}

    await eventually(counted)
