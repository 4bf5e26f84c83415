"""Every sender of the catalogue through the whole house, and their handshakes over HTTP."""

from __future__ import annotations

import base64
import hmac
import time
from dataclasses import replace

import httpx
import pytest
from webhook_ops.samples.senders import sender
from webhook_ops.samples.signing import example_body, freshened, sign

from tests.senders import Delivery
from tests.system import WORLD, WORLD_PRIVATE_KEY, WORLD_SECRET, House

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKENS = {"azure-devops", "gitlab", "microsoft-graph"}


def made(tool: str, secret: str) -> Delivery:
    """A delivery as `webhook-cli send` makes it."""
    now, delivery_id = time.time(), f"world-{time.time_ns()}"
    example = sender(tool).example
    kind = example.type if example else "push"
    body = f'{{"sent":"{delivery_id}"}}'.encode()
    if example:
        body = example_body(example, event_type=kind, delivery_id=delivery_id, now=now)
    body = freshened(tool, body, secret, now=now)
    headers = sign(tool, body, secret, event_type=kind, delivery_id=delivery_id, now=now)
    return Delivery(f"/webhooks/world/{tool}", tuple(headers), body)


@pytest.mark.parametrize("tool", [*WORLD, "standard-webhooks"])
async def test_a_sender_is_let_in_once_and_a_forger_never(house: House, tool: str) -> None:
    delivery = made(tool, WORLD_PRIVATE_KEY if tool == "standard-webhooks" else WORLD_SECRET)
    answer = await house.post(delivery)
    assert answer.status == (200 if tool == "linear" else 202), answer
    assert not answer.duplicate
    again = await house.post(delivery)
    assert (again.status, again.duplicate, again.event_id) == (answer.status, True, answer.event_id)
    if tool not in TOKENS:
        forged = await house.post(replace(delivery, body=delivery.body.replace(b"{", b"{ ", 1)))
        assert forged.status == 401, forged
    other = made(tool, "whsk_" + "A" * 43 + "=" if tool == "standard-webhooks" else "another: secret")
    assert (await house.post(other)).status == 401


async def test_twitter_shakes_hands_by_get(house: House) -> None:
    async with httpx.AsyncClient(base_url=f"http://{house.http}") as client:
        answer = await client.get("/webhooks/world/twitter", params={"crc_token": "uzwcfYtzr9"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        digest = hmac.digest(WORLD_SECRET.encode(), b"uzwcfYtzr9", "sha256")
        assert answer.json() == {"response_token": "sha256=" + base64.b64encode(digest).decode()}
        for query in ({}, {"crc": "a"}):
            refused = await client.get("/webhooks/world/twitter", params=query)
            assert (refused.status_code, refused.headers["allow"]) == (405, "POST, GET")
        forging = await client.get("/webhooks/world/twitter", params={"crc_token": '{"a":1}'})
        assert forging.status_code == 400
        assert (await client.get("/webhooks/world/github", params={"crc_token": "a"})).status_code == 405


async def test_microsoft_graph_shakes_hands_by_post(house: House) -> None:
    async with httpx.AsyncClient(base_url=f"http://{house.http}") as client:
        answer = await client.post(
            "/webhooks/world/microsoft-graph?validationToken=Validation%3a+reachable+1",
            headers={"content-type": "text/plain; charset=utf-8"},
        )
        assert (answer.status_code, answer.text) == (200, "Validation: reachable 1")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-content-type-options"] == "nosniff"
        unasked = await client.post(
            "/webhooks/world/microsoft-graph", content=b"hello", headers={"content-type": "text/plain"}
        )
        assert unasked.status_code == 415
