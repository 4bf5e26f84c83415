"""What an operator can set for how small contexts share objects of the cold store."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import model_validator
from webhook_shared.settings import ByteCount, Duration, Section, setting


class ContextSegmentsSection(Section):
    """`webhook.context_segments`: many small cold contexts in one object."""

    size: ByteCount = setting(
        8 * 2**20, description="Of one segment, at most; 0 keeps each context in an object of its own."
    )
    largest_context: ByteCount = setting(
        256 * 1024, description="Contexts that are larger when packed stay objects of their own."
    )
    min_contexts: int = setting(
        4, ge=1, description="Fewer that go to the cold store at the same time stay objects of their own."
    )
    linger: Duration = setting(
        timedelta(seconds=5), description="How long a context waits at most for others to share its segment."
    )
    min_live_ratio: float = setting(
        0.5, ge=0, le=1, description="A segment with a smaller share of live bytes is rewritten."
    )
    forget_interval: Duration = setting(
        timedelta(minutes=10),
        description="How often keys of contexts that left their segments are dropped; deleted ones at once.",
    )
    check_interval: Duration = setting(
        timedelta(seconds=30),
        description="How often to look for segments that are to be rewritten or dropped.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.size and self.largest_context > self.size:
            raise ValueError("largest_context must not be above size")
        if self.check_interval <= timedelta():
            raise ValueError("check_interval must be above 0s")
        return self
