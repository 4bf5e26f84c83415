"""What an operator may set of running beside SQS, moving off it, and going back to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator

from webhook_shared.settings import ByteCount, Duration, Section, setting


class MigrationSection(Section):
    """`webhook.migration`: the queue on SQS, and the way between it and Redis."""

    dual_write: bool = setting(
        False,
        env="DUAL_WRITE_MODE",
        description="Whether each event that goes through Redis is also copied to SQS.",
    )
    backend: Literal["redis", "sqs"] = setting(
        "redis", env="WEBHOOK_BACKEND", description="The queue that new events go through."
    )
    sqs_queue_url: str = setting(
        "",
        env="SQS_QUEUE_URL",
        pattern=r"^(https?://[^\s/]+/\S+)?$",
        description="The URL of the SQS queue; one that ends in .fifo is a FIFO queue.",
    )
    sqs_endpoint: str = setting(
        "",
        env="SQS_ENDPOINT",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="URL of the SQS service; empty: the host that the queue's URL names.",
    )
    sqs_region: str = setting(
        "",
        env="SQS_REGION",
        pattern=r"^[a-z0-9-]{0,64}$",
        description="Region of the queue; empty: as its URL says, else AWS_REGION.",
    )
    consume_sqs: bool = setting(
        False,
        env="SQS_CONSUME",
        description="Work off SQS as well as Redis even with backend redis: until it is empty after a move.",
    )
    redis_share_percent: int = setting(
        0,
        ge=0,
        le=100,
        env="WEBHOOK_REDIS_SHARE_PERCENT",
        description="With backend sqs: the share of events that go through Redis, until "
        "`webhook-cli migration ramp` says otherwise.",
    )
    copy_buffer_events: int = setting(
        20_000, ge=1, description="Most events that wait for their copy in SQS; further ones are not copied."
    )
    copy_buffer: ByteCount = setting(
        64 * 2**20, ge=2**20, description="Most bytes that wait so; past it events are not copied."
    )
    parity_retention: Duration = setting(
        timedelta(hours=1),
        ge=timedelta(minutes=2),
        le=timedelta(days=1),
        description="How far back both queues can be compared: 24 bytes in Redis for each event and queue.",
    )

    @model_validator(mode="after")
    def _has_a_queue(self) -> Self:
        if (self.writes_sqs or self.reads_sqs) and not self.sqs_queue_url:
            raise ValueError(
                "sqs_queue_url (SQS_QUEUE_URL) is needed with WEBHOOK_BACKEND=sqs, "
                "DUAL_WRITE_MODE or SQS_CONSUME"
            )
        return self

    @property
    def writes_sqs(self) -> bool:
        """Whether a gateway puts events into SQS."""
        return self.backend == "sqs" or self.dual_write

    @property
    def reads_sqs(self) -> bool:
        """Whether a consumer works off SQS; Redis it always does."""
        return self.backend == "sqs" or self.consume_sqs
