"""What became of a delivery. HTTP and RPC each say it in their own words."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Accepted(NamedTuple):
    """Durable: it is in a stream, or in the spool on its way there."""

    event_id: str
    quarantined: bool
    # The event that came first under the same id with another body; empty where there is none.
    conflict_of: str = ""


class Duplicate(NamedTuple):
    """Had been accepted before."""

    first_event_id: str
    # It came under another id than it had then, with the same signature.
    renamed: bool = False


class Answered(NamedTuple):
    """A handshake, and what to say to it."""

    status: int
    content_type: str
    body: bytes


class Refused(NamedTuple):
    """Not let in."""

    # As `webhook.security.v1.Refusal` without its prefix: "SIGNATURE_INVALID".
    cause: str
    # 0 where waiting does not help.
    retry_after_s: float


class Unavailable(NamedTuple):
    """We could not decide or could not keep it; the sender should come again."""

    # "security", "redis", "key" (Redis refuses this one alone), "durability" (it is in the stream, but not
    # yet as safe as its source asks) or "spool" (Redis is away and the spool can't take it).
    missing: str
    retry_after_s: float


class Publication(NamedTuple):
    """A sealed event on its way into a stream; not yet an outcome."""

    event_id: str
    tenant: str
    tool: str
    type: str
    received_ms: int
    schema: int
    sealed: bytes
    traceparent: str
    dedup_key: str
    window_ms: int
    occurrences_allowed: int
    quarantined: bool
    # As `webhook.security.v1.Durability`.
    durability: int = 0
    # Tells bodies of one dedup_key apart; empty where they are not compared.
    body_digest: str = ""
    # As dedup_key, of what is signed; empty where there is none.
    replay_key: str = ""
    replay_window_ms: int = 0


# Causes of a refusal that the sender can't mend; a cause that we don't know is one of them.
OUR_FAULT = frozenset(("SECRET_UNAVAILABLE", "INTERNAL", "UNSPECIFIED"))

Published: TypeAlias = Accepted | Duplicate | Unavailable
Outcome: TypeAlias = Accepted | Duplicate | Answered | Refused | Unavailable
