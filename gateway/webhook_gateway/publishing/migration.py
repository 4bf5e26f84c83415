"""The state of a migration between queues, for operators: what goes where, and whether nothing is lost."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from webhook_shared.redis import Client
from webhook_shared.sqs.client import Sqs, SqsTrouble
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.sqs.parity import Comparison, compare

from webhook_gateway.publishing.dual_write import Copier
from webhook_gateway.publishing.event_publisher import EventPublisher
from webhook_gateway.publishing.ramp import Share, ramp


class Status(NamedTuple):
    """Where a migration stands, as one gateway sees it.

    Attributes:
        backend: "redis" or "sqs".
        queue_url: Of SQS.
        redis_share_percent: Of events that go through Redis.
        copies_waiting: Events that wait for their copy.
        copies_lost: Events that will have none, since this process began.
        sqs_waiting: About how many messages wait in SQS; None where it does not answer.
        sqs_in_flight: About how many are handed out; None as above.
    """

    backend: str
    dual_write: bool
    queue_url: str
    redis_share_percent: int
    copies_waiting: int
    copies_lost: int
    sqs_waiting: int | None
    sqs_in_flight: int | None


class Migration:
    """A gateway that knows SQS.

    Attributes:
        publisher: To whichever queue an event goes through.
    """

    def __init__(
        self,
        settings: MigrationSection,
        *,
        redis: Client,
        publisher: EventPublisher,
        sqs: Sqs,
        share: Share,
        copier: Copier | None,
    ) -> None:
        self.publisher = publisher
        self._settings = settings
        self._redis = redis
        self._sqs = sqs
        self._share = share
        self._copier = copier

    async def probe(self) -> None:
        """Raise SqsTrouble unless SQS answers."""
        await self._sqs.counts()

    async def status(self) -> Status:
        """As it is now."""
        waiting: int | None = None
        in_flight: int | None = None
        with suppress(SqsTrouble):
            waiting, in_flight, _ = await self._sqs.counts()
        is_sqs = self._settings.backend == "sqs"
        return Status(
            backend=self._settings.backend,
            dual_write=self._settings.dual_write,
            queue_url=self._sqs.url,
            redis_share_percent=self._share.percent if is_sqs else 100,
            copies_waiting=len(self._copier) if self._copier else 0,
            copies_lost=self._copier.lost if self._copier else 0,
            sqs_waiting=waiting,
            sqs_in_flight=in_flight,
        )

    @property
    def backend(self) -> str:
        """What new events go through: "redis" or "sqs"."""
        return self._settings.backend

    @property
    def dual_write(self) -> bool:
        """Whether what goes through Redis is copied to SQS."""
        return self._settings.dual_write

    async def ramp(self, percent: int | None) -> int:
        """See `ramp.ramp`; here at once. Returns the share that holds now.

        Raises:
            REDIS_TROUBLE: Redis does not answer.
        """
        await ramp(self._redis, percent)
        await self._share.look()
        return self._share.percent

    async def compare(self, *, window_s: float, settle_s: float) -> Comparison:
        """See `parity.compare`."""
        return await compare(self._redis, window_s=window_s, settle_s=settle_s)
