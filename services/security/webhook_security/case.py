"""One delivery on its way through the judge."""

from __future__ import annotations

from typing import Any, NamedTuple

from webhook.event.v1.event_pb2 import ADDRESS_VERDICT_UNSPECIFIED, AddressVerdict, WebhookEvent
from webhook.security.v1.admission_pb2 import Delivery, Verdict

from webhook_security.registry.sources import Source
from webhook_security.verification.verify import Proof


class Again(NamedTuple):
    """What is different where a delivery is judged that was refused before.

    Attributes:
        event_id: Of the event that it may become: each hearing makes the same one.
        received_s: When it came, Unix time; what it signed is held against that.
        nonce: Set where it is to become an event whatever its sender has delivered since.
    """

    event_id: str
    received_s: float
    nonce: str = ""


class Case:
    """One delivery on its way through the steps.

    Attributes:
        delivery: As it came.
        verdict: What is said of it; filled in here.
        source: What it is judged by; None where there is none.
        is_producer: It came through our own RPC door, from somebody who has proved who it is.
        address: What the source's allow-list says of where it came from.
        body: As it came; once it has a name, the payload of the event, which `event` itself lacks.
        traced_from_ns: When it began to be judged, Unix time; 0 where nobody records its trace.
        again: Set where it was refused before.
    """

    __slots__ = (
        "address",
        "again",
        "body",
        "content_type",
        "delivery",
        "document",
        "event",
        "headers",
        "is_producer",
        "proof",
        "source",
        "traced_from_ns",
        "verdict",
    )

    address: AddressVerdict.ValueType
    # Taken from the delivery once: each time it is asked, it makes another copy.
    body: bytes
    content_type: str
    document: Any
    event: WebhookEvent
    headers: dict[str, bytes]
    proof: Proof

    def __init__(
        self,
        delivery: Delivery,
        verdict: Verdict,
        source: Source | None,
        *,
        is_producer: bool,
        again: Again | None = None,
    ) -> None:
        self.delivery = delivery
        self.verdict = verdict
        self.source = source
        self.is_producer = is_producer
        self.again = again
        self.address = ADDRESS_VERDICT_UNSPECIFIED
        self.traced_from_ns = 0
