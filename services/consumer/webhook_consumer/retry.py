"""When a failed entry is tried again, and when it is given up."""

from __future__ import annotations

import random
from dataclasses import dataclass

from webhook_consumer.entry import Retry

# Beyond this many doublings every realistic base has met its cap.
MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    Attributes:
        max_retries: Tries after the first one.
        base_s: The ceiling of the first delay, seconds; doubles with each failure...
        cap_s: ...up to this.
    """

    max_retries: int
    base_s: float
    cap_s: float

    def delay_s(self, retry: Retry, failures: int) -> float | None:
        """How long to wait, seconds; None where all tries are used up.

        Args:
            retry: The latest failure.
            failures: How many there have been, with this one; 1 or more.
        """
        if failures > self.max_retries and not retry.patient:
            return None
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
        jittered = random.uniform(0, ceiling)  # noqa: S311  # spreads load; guards nothing
        # Whoever was told when to come again comes a little later, not all at the same instant.
        return jittered if retry.after_s is None else retry.after_s + random.uniform(0, self.base_s)  # noqa: S311
