"""Sending one webhook as its sender would, and what the edge says to it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx
import orjson

from webhook_ops.samples.signing import freshened, sign

DEFAULT_TENANT = "default"


@dataclass(frozen=True)
class Delivery:
    """A webhook, not signed yet: the signature may hold the time of sending.

    Attributes:
        tool: The name of its route.
        event_type: The sender's event type.
        body: As it is to be sent, but for what the sender puts into it at that moment.
        delivery_id: The sender's id of this delivery.
    """

    tool: str
    event_type: str
    body: bytes = field(repr=False)
    delivery_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Answer:
    """What the edge said.

    Attributes:
        status: HTTP status.
        event_id: Of the event, or of the first one where this is a duplicate; empty where it says none.
        duplicate: Whether it had been taken before.
        text: The body of the answer.
    """

    status: int
    event_id: str
    duplicate: bool
    text: str

    @property
    def accepted(self) -> bool:
        """Whether the sender may forget it."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


def route(base_url: str, tool: str, tenant: str = DEFAULT_TENANT) -> str:
    """Where a tool's webhooks go."""
    return (
        f"{base_url}/webhooks/{tool}" if tenant == DEFAULT_TENANT else f"{base_url}/webhooks/{tenant}/{tool}"
    )


async def send(client: httpx.AsyncClient, url: str, delivery: Delivery, secret: str) -> Answer:
    """Sign and send.

    Raises:
        httpx.HTTPError: Nobody answered.
        ValueError: The secret can't be used for this tool.
    """
    now = time.time()
    body = freshened(delivery.tool, delivery.body, secret, now=now)
    headers = sign(
        delivery.tool,
        body,
        secret,
        event_type=delivery.event_type,
        delivery_id=delivery.delivery_id,
        now=now,
    )
    response = await client.post(url, content=body, headers=headers)
    told = _object(response.content)
    return Answer(
        status=response.status_code,
        event_id=str(told.get("event_id", "")),
        duplicate=told.get("duplicate") is True,
        text=response.text,
    )


def _object(content: bytes) -> Mapping[str, object]:
    try:
        tree = orjson.loads(content)
    except orjson.JSONDecodeError:
        # A handshake is answered with plain text.
        return {}
    return tree if isinstance(tree, dict) else {}
