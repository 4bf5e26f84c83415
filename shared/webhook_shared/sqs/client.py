"""The one place that speaks to SQS: its limits, its calls, and its failures in our words."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aioboto3
import aiohttp
import orjson
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.telemetry import log

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
# Queues of today take up to 1 MiB where somebody says so; older ones, and other servers, what stands here.
MESSAGE_BYTES = 262_144
BATCH_BYTES = 262_144
BATCH_ENTRIES = 10
LONGEST_VISIBILITY_S = 43_200
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
LONGEST_WAIT_S = 20

CONNECTIONS = 32
CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = LONGEST_WAIT_S + 5.0

_REGION = re.compile(r"^sqs[.-]([a-z0-9-]+)\.|^([a-z0-9-]+)\.queue\.")
_MISSING = {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}
# What no waiting mends.
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "AuthFailure",
    "InvalidAddress",
    "NoCredentialsError",
    "PartialCredentialsError",
}

T = TypeVar("T")


class SqsTrouble(ConnectionError):
    """SQS can't be reached, refuses or throttles; the call may or may not have had its effect.

    One of `REDIS_TROUBLE`, as every OSError: whoever waits for one queue waits for the other likewise.

    Attributes:
        code: SQS's error code, or the kind of the driver's error; never its text.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Fault(NamedTuple):
    """Why one entry of a batch failed.

    Attributes:
        code: SQS's: "InternalError", "ReceiptHandleIsInvalid".
        ours: It would fail again however often it is repeated.
    """

    code: str
    ours: bool


class Received(NamedTuple):
    """A message as SQS handed it out.

    Attributes:
        id: SQS's; stays the same whenever it is handed out.
        handle: Of this time; needed to settle it.
        body: As text.
        sent_ms: When it came into the queue, Unix milliseconds.
        receives: How often it was handed out, about, this time included.
    """

    id: str
    handle: str
    body: str
    sent_ms: int
    receives: int


class Sqs:
    """One queue. Every method raises SqsTrouble."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self.url = url

    @property
    def is_fifo(self) -> bool:
        """Whether messages need a group and a deduplication id."""
        return self.url.endswith(".fifo")

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return self.url.rpartition("/")[2]

    async def send(self, entries: Sequence[dict[str, str]]) -> list[Fault | None]:
        """Put messages into the queue, BATCH_ENTRIES at most; per entry None, or why not.

        Args:
            entries: MessageBody, and for a FIFO queue MessageGroupId and MessageDeduplicationId, of each.
        """
        return await self._batch(self._client.send_message_batch, entries)

    async def receive(self, most: int, *, wait_s: int, visibility_s: int) -> list[Received]:
        """Take messages, BATCH_ENTRIES at most, which nobody else is given for `visibility_s`."""
        found = await self._call(
            self._client.receive_message,
            MaxNumberOfMessages=min(most, BATCH_ENTRIES),
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=visibility_s,
            AttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
        )
        return [_received(message) for message in found.get("Messages", ())]

    async def delete(self, handles: Sequence[str]) -> list[Fault | None]:
        """Take messages out for good, BATCH_ENTRIES at most; per handle None, or why not."""
        return await self._batch(
            self._client.delete_message_batch, [{"ReceiptHandle": handle} for handle in handles]
        )

    async def hide(self, hidden: Sequence[tuple[str, int]]) -> list[Fault | None]:
        """Say how long, seconds from now, nobody else is given each; BATCH_ENTRIES at most."""
        return await self._batch(
            self._client.change_message_visibility_batch,
            [{"ReceiptHandle": handle, "VisibilityTimeout": seconds} for handle, seconds in hidden],
        )

    async def counts(self) -> tuple[int, int, int]:
        """About how many messages are waiting, handed out, and delayed by the queue itself."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        found = await self._call(self._client.get_queue_attributes, AttributeNames=list(names))
        waiting, handed_out, delayed = (int(found.get("Attributes", {}).get(name, 0)) for name in names)
        return waiting, handed_out, delayed

    async def given_up(self) -> int:
        """About how many messages lie in the queue that its redrive policy names; 0 without one."""
        found = await self._call(self._client.get_queue_attributes, AttributeNames=["RedrivePolicy"])
        policy = found.get("Attributes", {}).get("RedrivePolicy")
        if not policy:
            return 0
        # It is in the same account and region, so that its URL differs in the name alone.
        name = str(orjson.loads(policy)["deadLetterTargetArn"]).rpartition(":")[2]
        try:
            return sum(await Sqs(self._client, f"{self.url.rpartition('/')[0]}/{name}").counts())
        except SqsTrouble as error:
            if error.code not in _DENIED:
                raise
            log.info("sqs.dead_letters_unreadable", queue=name, error=error.code)
            return 0

    async def check(self) -> None:
        """See that the queue is there and ours.

        Raises:
            RuntimeError: It is not; one line that says what to do.
            SqsTrouble: SQS does not answer now.
        """
        try:
            await self.counts()
        except SqsTrouble as error:
            if error.code in _MISSING:
                raise RuntimeError(
                    f"sqs: there is no queue {self.url}; create it, or check SQS_QUEUE_URL and its region"
                ) from None
            if error.code in _DENIED:
                raise RuntimeError(
                    f"sqs: {self.url} refuses us ({error.code}); check AWS_ACCESS_KEY_ID, the role, "
                    "the region and the queue's policy"
                ) from None
            raise

    async def _batch(self, call: Callable[..., Any], entries: Sequence[dict[str, Any]]) -> list[Fault | None]:
        numbered = [{"Id": str(at), **entry} for at, entry in enumerate(entries)]
        reply = await self._call(call, Entries=numbered)
        faults: list[Fault | None] = [Fault("NoAnswer", ours=False)] * len(entries)
        for done in reply.get("Successful", ()):
            faults[int(done["Id"])] = None
        for failed in reply.get("Failed", ()):
            faults[int(failed["Id"])] = Fault(str(failed.get("Code", "")), bool(failed.get("SenderFault")))
        return faults

    async def _call(self, call: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = await call(QueueUrl=self.url, **arguments)
        except ClientError as error:
            raise SqsTrouble(str(error.response.get("Error", {}).get("Code", "unknown"))) from None
        except (BotoCoreError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SqsTrouble(type(error).__name__) from None
        return reply


@asynccontextmanager
async def opened(settings: MigrationSection) -> AsyncIterator[Sqs]:
    """The queue that the settings name; nothing is sent before the first call.

    Credentials come from where boto looks for them: AWS_ACCESS_KEY_ID, a profile, the role of the machine.
    """
    url = settings.sqs_queue_url
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        # Whoever calls repeats, within its own patience.
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    session = aioboto3.Session(region_name=settings.sqs_region or region_of(url))
    async with session.client(
        "sqs", endpoint_url=settings.sqs_endpoint or _origin(url), config=config
    ) as client:
        yield Sqs(client, url)


def batches(items: Sequence[T], size_bytes: Callable[[T], int]) -> Iterator[list[T]]:
    """Portions that one call may carry, in order."""
    portion: list[T] = []
    total = 0
    for item in items:
        size = size_bytes(item)
        if portion and (len(portion) == BATCH_ENTRIES or total + size > BATCH_BYTES):
            yield portion
            portion, total = [], 0
        portion.append(item)
        total += size
    if portion:
        yield portion


async def side_by_side(calls: Sequence[Callable[[], Any]], at_once: int) -> list[Any]:
    """Make calls, so many at a time; in order a result for each, an SqsTrouble where one failed."""
    turns = asyncio.Semaphore(at_once)

    async def made(call: Callable[[], Any]) -> Any:
        async with turns:
            try:
                return await call()
            except SqsTrouble as error:
                return error

    return list(await asyncio.gather(*(made(call) for call in calls)))


def region_of(url: str) -> str:
    """The region of a queue's URL; of the environment where the URL names none."""
    match = _REGION.match(urlsplit(url).hostname or "")
    named = (match[1] or match[2]) if match else ""
    return named or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _received(message: dict[str, Any]) -> Received:
    attributes = message.get("Attributes", {})
    return Received(
        id=message["MessageId"],
        handle=message["ReceiptHandle"],
        body=message.get("Body", ""),
        sent_ms=int(attributes.get("SentTimestamp", 0)),
        receives=int(attributes.get("ApproximateReceiveCount", 1)),
    )
