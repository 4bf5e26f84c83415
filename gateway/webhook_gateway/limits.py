"""What the edge bears: of one sender, of all connections, of bodies that are being taken in."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import structlog
from webhook_shared.networks import household

log = structlog.get_logger()

BURST_S = 5.0
"""A sender may be so far ahead of its rate, as the time in which that much passes."""

MOST_SENDERS = 32_768
"""So many are remembered, and as many again that have not been seen for longer."""

SPARE_FILES = 256
"""Left for everything that is no sender's connection: Redis, security, producers, logs."""


class Disbelief:
    """Counts what each sender sent that nobody believed, and turns away who goes on.

    A request that is refused for what it is counts one up, a delivery that is believed one down, and time
    counts down at the rate. So a sender of ours is never limited here, however much it sends, and who
    guesses gets no further than a header. In this process alone, in bounded memory.

    Args:
        rate: Unbelieved requests per second and sender.
        clock: Seconds, monotonic.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._cost_s = 1 / rate
        self._clock = clock
        # By sender, the time at which its account is even. The old ones go when the new ones are too many.
        self._even_s: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def wait_s(self, peer: str) -> float:
        """For how long this sender is to be turned away; 0 where it is not."""
        if not self._even_s and not self._before:
            return 0.0
        even_s = self._account(household(peer))
        return max(0.0, even_s + self._cost_s - BURST_S - self._clock()) if even_s else 0.0

    def disbelieved(self, peer: str) -> None:
        """It sent something that was refused."""
        sender = household(peer)
        self._even_s[sender] = max(self._account(sender), self._clock()) + self._cost_s
        if len(self._even_s) >= MOST_SENDERS:
            self._before, self._even_s = self._even_s, {}

    def believed(self, peer: str) -> None:
        """It sent something that was taken."""
        if not self._even_s and not self._before:
            return
        sender = household(peer)
        even_s = self._account(sender)
        if even_s > self._clock():
            self._even_s[sender] = even_s - self._cost_s

    def _account(self, sender: str) -> float:
        found = self._even_s.get(sender)
        return self._before.get(sender, 0.0) if found is None else found


class Crowd:
    """Counts open connections.

    Args:
        most: At once.
        most_per_sender: Of one sender, at once.
        is_exempt: Tells proxies, which stand for many senders; None where there are none.
    """

    def __init__(
        self, most: int, most_per_sender: int, *, is_exempt: Callable[[str], bool] | None = None
    ) -> None:
        self._most = most
        self._most_per_sender = most_per_sender
        self._is_exempt = is_exempt
        self._by_sender: dict[str, int] = {}
        self.size = 0

    def is_full(self) -> bool:
        """Whether nobody else is taken."""
        return self.size >= self._most

    def has_enough_of(self, peer: str) -> bool:
        """Whether this sender has as many as it may have."""
        if self._by_sender.get(household(peer), 0) < self._most_per_sender:
            return False
        return self._is_exempt is None or not self._is_exempt(peer)

    def enter(self, peer: str) -> None:
        """One more."""
        self.size += 1
        sender = household(peer)
        self._by_sender[sender] = self._by_sender.get(sender, 0) + 1

    def leave(self, peer: str) -> None:
        """One less."""
        self.size -= 1
        sender = household(peer)
        left = self._by_sender[sender] - 1
        if left:
            self._by_sender[sender] = left
        else:
            del self._by_sender[sender]


class Room:
    """Memory for bodies, from their first byte until they are answered.

    Args:
        size_bytes: For all of them together.
    """

    def __init__(self, size_bytes: int) -> None:
        self.free_bytes = size_bytes

    def take(self, size_bytes: int) -> bool:
        """Take some, if it is there."""
        if size_bytes > self.free_bytes:
            return False
        self.free_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        """What was taken."""
        self.free_bytes += size_bytes


def connections_allowed(most: int) -> int:
    """As many of `most` connections as the system lets this process have; asks it for more where it must."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return most
    allowed = max(1, soft - SPARE_FILES)
    log.warning("http.few_open_files", limit=soft, connections=allowed, wanted=most)
    return allowed
