"""The senders that we know, as data: one file per sender in `sources/`.

A file that says something we don't know stops the service from starting: a scheme that is not understood
must never mean that nothing is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from webhook_shared.settings import ByteCount, Duration, Section

from webhook_security.fields import Place, Selector
from webhook_security.schemes import SIGNATURE_HEADER_PLACEHOLDER, Scheme

GENERIC = "generic"
"""The entry that tools of unknown names follow."""

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_CREDENTIAL_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def _media_type(value: str) -> str:
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("a media type is lower case and has no parameters")
    return value


_LowerHeader = Annotated[str, AfterValidator(str.lower)]
_MediaType = Annotated[str, AfterValidator(_media_type)]


class DeliveryRow(Section):
    """What names a delivery.

    Attributes:
        id: The sender's id; the same when the same event comes again.
        scope: What the id is unique within, beyond tenant and tool.
    """

    id: tuple[Place, ...] = ()
    scope: tuple[Place, ...] = ()


class EventRow(Section):
    """What the event says of itself.

    Attributes:
        type: The sender's own type.
        action: The sender's own action within the type.
        occurred: When it happened.
        occurred_unit: How that is written.
    """

    type: tuple[Place, ...]
    action: tuple[Place, ...] = ()
    occurred: tuple[Place, ...] = ()
    occurred_unit: Literal["s", "ms", "iso"] = "iso"


class HandshakeRow(Section):
    """A request that wants an echo and is no event.

    Attributes:
        when: The place that tells...
        equals: ...by holding this.
        reply: The place of what to echo, at most 1 KiB; answered with 200 as text/plain.
    """

    when: Place
    equals: str
    reply: Place


class DedupRow(Section):
    """How long a delivery is remembered.

    Attributes:
        window: At least as long as the sender may deliver the same event again.
        occurrences: How many deliveries of one event pass.
    """

    window: Duration
    occurrences: int = Field(1, ge=1, le=100)


class AnswerRow(Section):
    """The HTTP status for what was taken."""

    accepted: Literal[200, 202] = 202
    duplicate: Literal[200, 202] = 202


class SenderRow(Section):
    """What the sender does with our answer: for people, and for who decides on statuses.

    Attributes:
        retries: Whether it sends again what it could not deliver.
        timeout: How long it waits.
        on_4xx: What becomes of a delivery answered so (429 apart).
        on_429: The same.
        on_5xx: The same, and for broken connections.
    """

    retries: bool
    timeout: Duration | None = None
    on_4xx: str = ""
    on_429: str = ""
    on_5xx: str = ""


class Row(Section):
    """One sender.

    Attributes:
        title: For people.
        documentation_url: Where the sender explains its deliveries.
        checked_date: When this entry was last held against that.
        schemes: First choice first.
        delivery: What names a delivery.
        event: What the event says of itself.
        keep_headers: What travels with the event; never a credential.
        content_types: What is taken.
        form_field: The field of a form-encoded body that holds the JSON document.
        max_body: Largest body; `webhook.security.max_payload_size` where it is left out.
        dedup: `webhook.deduplication.default_window` where it is left out.
        handshake: Set where the sender shakes hands.
        answers: The HTTP status for what was taken.
        sender: What the sender does with our answer.
    """

    title: str
    documentation_url: str
    checked_date: date
    schemes: tuple[Scheme, ...] = Field(min_length=1)
    delivery: DeliveryRow
    event: EventRow
    keep_headers: tuple[_LowerHeader, ...] = ()
    content_types: tuple[_MediaType, ...] = Field(min_length=1)
    form_field: str = ""
    max_body: ByteCount | None = None
    dedup: DedupRow | None = None
    handshake: HandshakeRow | None = None
    answers: AnswerRow = AnswerRow()
    sender: SenderRow

    @model_validator(mode="after")
    def _keeps_no_credential(self) -> Self:
        proofs = {name for scheme in self.schemes for name in scheme.headers if name == scheme.header}
        kept = set(self.keep_headers) & (proofs | _CREDENTIAL_HEADERS)
        if kept:
            raise ValueError(f"keep_headers must not keep {', '.join(sorted(kept))}")
        return self

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """Every place that is looked at."""
        handshake = (self.handshake.when, self.handshake.reply) if self.handshake else ()
        event = (*self.event.type, *self.event.action, *self.event.occurred)
        return (*self.delivery.id, *self.delivery.scope, *event, *handshake)


class CatalogueError(RuntimeError):
    """A file of the catalogue can't be used; the message is one line."""


def load(signature_header: str, folder: Traversable | None = None) -> Mapping[str, Row]:
    """Every entry by its name, which is its file's.

    Args:
        signature_header: What `{signature_header}` stands for.
        folder: Where the files are; those of this package where it is None.

    Raises:
        CatalogueError: A file is not understood, wholly.
    """
    folder = folder or files("webhook_security") / "sources"
    found = {
        file.name.removesuffix(".yaml"): _read(file, signature_header)
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if file.name.endswith(".yaml")
    }
    if GENERIC not in found:
        raise CatalogueError(f"sources/{GENERIC}.yaml is missing")
    return found


def _read(file: Traversable, signature_header: str) -> Row:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise CatalogueError(f"sources/{file.name}: is not YAML") from None
    for scheme in tree.get("schemes") or () if isinstance(tree, dict) else ():
        if isinstance(scheme, dict) and scheme.get("header") == SIGNATURE_HEADER_PLACEHOLDER:
            scheme["header"] = signature_header
    try:
        return Row.model_validate(tree)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()]
        raise CatalogueError(f"sources/{file.name}: {'; '.join(problems)}".replace("\n", " ")) from None
