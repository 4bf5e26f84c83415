"""An SQS server that we did not write, and queues on it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from webhook_shared.sqs.client import Sqs, opened
from webhook_shared.sqs.migration import MigrationSection

from shared.tests.s3_server import moto_server

#: boto looks here for credentials; the server takes any.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def sqs_server() -> Iterator[str]:
    """The URL of a server: WEBHOOK_TEST_SQS, or moto in a process of its own."""
    if url := os.environ.get("WEBHOOK_TEST_SQS"):
        yield url
        return
    with moto_server() as url:
        yield url


@dataclass(frozen=True)
class TestQueue:
    """A queue of one test's own.

    Attributes:
        sqs: As our services speak to it.
        client: As anybody else does.
    """

    __test__ = False

    sqs: Sqs
    client: Any

    @property
    def url(self) -> str:
        return self.sqs.url

    async def send(self, body: str) -> None:
        """Put in what no gateway of ours has written."""
        more = (
            {"MessageGroupId": "g", "MessageDeduplicationId": secrets.token_hex(8)}
            if self.sqs.is_fifo
            else {}
        )
        await self.client.send_message(QueueUrl=self.url, MessageBody=body, **more)

    async def size(self) -> int:
        """How many messages there are, handed out or not."""
        return sum(await self.sqs.counts())


@asynccontextmanager
async def queue_on(
    server: str, *, fifo: bool = False, url: str = "", **attributes: str
) -> AsyncIterator[TestQueue]:
    """A new queue.

    Args:
        server: URL of the server.
        fifo: Whether it is a FIFO queue.
        url: Of the server on another way to it, for our own side; the same way if empty.
        attributes: Of the queue.
    """
    session = aioboto3.Session(
        aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )
    config = AioConfig(max_pool_connections=20, retries={"total_max_attempts": 1})
    name = f"q-{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    if fifo:
        attributes["FifoQueue"] = "true"
    async with session.client("sqs", endpoint_url=server, config=config) as client:
        made = await client.create_queue(QueueName=name, Attributes=attributes)
        settings = MigrationSection(sqs_queue_url=made["QueueUrl"], sqs_endpoint=url or server)
        async with opened(settings) as sqs:
            yield TestQueue(sqs, client)


def answer(status: int, tree: object) -> str:
    """An answer of SQS for a line to give, see `s3_server.Line.faults`."""
    body = json.dumps(tree)
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}"


#: What SQS says to whoever asks too much.
THROTTLED = answer(400, {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "slow down"})


def failed(*numbers: int, of: int, code: str = "InternalError", ours: bool = False) -> str:
    """An answer by which some entries of a batch failed."""
    return answer(
        200,
        {
            "Successful": [{"Id": str(at)} for at in range(of) if at not in numbers],
            "Failed": [{"Id": str(at), "Code": code, "SenderFault": ours} for at in numbers],
        },
    )
