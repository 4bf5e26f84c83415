"""The senders that we know, as data: one file per sender in `sources/`.

A file that says something we don't know stops the service from starting: a scheme that is not understood
must never mean that nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator
from webhook_shared.settings import ByteCount, Duration, Section, setting

from webhook_security.payloads.fields import LONGEST_TEXT, Place, Selector
from webhook_security.verification.handshakes import HandshakeRow, MediaType
from webhook_security.verification.schemes import SIGNATURE_HEADER_PLACEHOLDER, Scheme

GENERIC = "generic"
"""The entry that tools of unknown names follow."""

UNKNOWN_TYPE = "unknown"

_CREDENTIAL_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("names none: leave the key out instead")
    return values


_LowerHeader = Annotated[str, AfterValidator(str.lower)]
_Schemes = Annotated[tuple[Scheme, ...], AfterValidator(_some)]
_MediaTypes = Annotated[tuple[MediaType, ...], AfterValidator(_some)]


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
        otherwise: The type where the sender names none.
        action: The sender's own action within the type.
        occurred: When it happened.
        occurred_unit: How that is written.
    """

    type: tuple[Place, ...] = ()
    otherwise: str = Field(UNKNOWN_TYPE, min_length=1, max_length=LONGEST_TEXT)
    action: tuple[Place, ...] = ()
    occurred: tuple[Place, ...] = ()
    occurred_unit: Literal["s", "ms", "iso"] = "iso"


Durability = Literal["fast", "replicated", "fsynced"]


class DedupRow(Section):
    """What is the same delivery, and for how long it is remembered.

    Attributes:
        window: At least as long as the sender may deliver the same event again.
        occurrences: How many deliveries of one event pass.
        compare: What two deliveries of one id must have in common to be the same: the whole body, or nothing
            where the sender repeats an event in other words. Others are in conflict, and both are kept.
        replay: Where the id is not signed, whoever has seen a delivery can send it again under another id. It
            is recognised by its signature, or by that and the type where one body tells of several events.
            Only where the body says when it happened: two events may well have the same words.
        replay_window: For how long; as `window` where it is left out.
    """

    window: Duration
    occurrences: int = Field(1, ge=1, le=100)
    compare: Literal["body", "none"] = "body"
    replay: Literal["none", "signature", "signature_and_type"] = "none"
    replay_window: Duration | None = None


class AnswerRow(Section):
    """The HTTP status for what was taken."""

    accepted: Literal[200, 202] = 202
    duplicate: Literal[200, 202] = 202


class SenderRow(Section):
    """What the sender does with our answer: for people, and for who decides on statuses.

    Empty where its documentation does not say.

    Attributes:
        retries: Whether it sends again what it could not deliver.
        timeout: How long it waits.
        on_late: What becomes of a delivery that is answered later.
        on_3xx: What becomes of a delivery answered so.
        on_4xx: The same (429 apart).
        on_429: The same.
        on_5xx: The same, and for broken connections.
        lost: What is lost in the end.
    """

    retries: bool
    timeout: Duration | None = None
    on_late: str = ""
    on_3xx: str = ""
    on_4xx: str = ""
    on_429: str = ""
    on_5xx: str = ""
    lost: str = ""


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
        over_limit: What becomes of believed deliveries over a rate; where it is left out, senders that retry
            are rejected and the others shaped.
        durability: How safe an event must be before its sender hears that it is taken.
        sender: What the sender does with our answer.
    """

    title: str
    documentation_url: str
    checked_date: date
    schemes: _Schemes
    delivery: DeliveryRow
    event: EventRow
    keep_headers: tuple[_LowerHeader, ...] = ()
    content_types: _MediaTypes
    form_field: str = ""
    max_body: ByteCount | None = None
    dedup: DedupRow | None = None
    handshake: HandshakeRow | None = None
    answers: AnswerRow = AnswerRow()
    over_limit: Literal["shape", "reject"] | None = None
    durability: Durability = "fast"
    sender: SenderRow

    @model_validator(mode="after")
    def _keeps_no_credential(self) -> Self:
        proofs = {name for scheme in self.schemes for name in scheme.headers if name == scheme.header}
        kept = set(self.keep_headers) & (proofs | _CREDENTIAL_HEADERS)
        if kept:
            raise ValueError(f"keep_headers must not keep {', '.join(sorted(kept))}")
        return self

    @model_validator(mode="after")
    def _can_sign_its_handshake(self) -> Self:
        signs = self.handshake is not None and self.handshake.signature is not None
        if signs and not any(scheme.kind == "hmac" for scheme in self.schemes):
            raise ValueError("a signed handshake needs a scheme of kind hmac, whose secret signs it")
        return self

    @property
    def replay_problem(self) -> str:
        """Why `dedup.replay` can do nothing here; empty where it can, or is not asked for."""
        if self.dedup is None or self.dedup.replay == "none":
            return ""
        if not any(scheme.kind in {"hmac", "ed25519"} for scheme in self.schemes):
            return "dedup.replay needs a scheme that signs: hmac or ed25519"
        return "" if self.dates else "dedup.replay needs a place in the body under event.occurred"

    @property
    def dates(self) -> tuple[Selector, ...]:
        """Where the body says when it happened."""
        return tuple(place for place in self.event.occurred if not place.header)

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """Every place that is looked at."""
        handshake = self.handshake.places if self.handshake else ()
        event = (*self.event.type, *self.event.action, *self.event.occurred)
        return (*self.delivery.id, *self.delivery.scope, *event, *handshake)

    @property
    def masks(self) -> tuple[tuple[str, ...], ...]:
        """The places of a body where the sender shows its secret."""
        return tuple(tuple(scheme.field.split(".")) for scheme in self.schemes if scheme.field)

    @property
    def methods(self) -> tuple[str, ...]:
        """The HTTP methods that are taken: POST, and GET where hands are shaken so."""
        return ("POST", "GET") if self.handshake and self.handshake.method == "GET" else ("POST",)

    @property
    def edge_content_types(self) -> tuple[str, ...]:
        """The media types of deliveries and of handshakes."""
        of_handshakes = self.handshake.content_types if self.handshake else ()
        return tuple(dict.fromkeys((*self.content_types, *of_handshakes)))


class SourceSection(Section):
    """`webhook.security.sources.<tool>`: what differs from the catalogue entry that the tool follows.

    Each key that is there replaces the entry's whole one.
    """

    title: str = setting("", description="For people.")
    documentation_url: str = setting("", description="Where the sender explains its deliveries.")
    schemes: _Schemes = setting((), description="How the sender proves who it is, first choice first.")
    delivery: DeliveryRow = setting(DeliveryRow(), description="What names a delivery: id, scope.")
    event: EventRow = setting(
        EventRow(), description="What the event says of itself: type, otherwise, action, occurred."
    )
    keep_headers: tuple[_LowerHeader, ...] = setting((), description="What travels with the event.")
    content_types: _MediaTypes = setting((), description="The media types that are taken.")
    form_field: str = setting("", description="The field of a form-encoded body that holds the document.")
    max_body: ByteCount | None = setting(None, description="Largest body; max_payload_size if left out.")
    dedup: DedupRow | None = setting(
        None, description="window and occurrences; deduplication.window_configs goes before."
    )
    handshake: HandshakeRow | None = setting(None, description="Set where the sender shakes hands.")
    answers: AnswerRow = setting(AnswerRow(), description="The status for what was taken: 200 or 202.")
    over_limit: Literal["shape", "reject"] | None = setting(
        None,
        description="What becomes of believed deliveries over a rate: taken and marked (shape), or answered "
        "429 (reject). Left out: shape for senders that never retry, reject for the others.",
    )
    durability: Durability = setting(
        "fast",
        description="When an event counts as taken: Redis has it (fast), its replicas have it, too "
        "(replicated), it is on a disk (fsynced).",
    )


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


def shaped(row: Row, section: SourceSection, tool: str, signature_header: str) -> Row:
    """An entry with what the configuration says instead.

    Args:
        row: The entry.
        section: What replaces parts of it.
        tool: Whose it is.
        signature_header: What `{signature_header}` stands for.

    Raises:
        CatalogueError: The parts do not fit together.
    """
    parts = {name: getattr(row, name) for name in Row.model_fields}
    parts |= {name: getattr(section, name) for name in section.model_fields_set}
    parts["schemes"] = tuple(
        scheme.model_copy(update={"header": signature_header.lower()})
        if scheme.header == SIGNATURE_HEADER_PLACEHOLDER
        else scheme
        for scheme in parts["schemes"]
    )
    try:
        made = Row(**parts)
    except ValidationError as error:
        raise CatalogueError(f"webhook.security.sources.{tool}: {_told(error)}") from None
    # What the entry asks for may go with the parts that were replaced; what the user asks for may not.
    if "dedup" in section.model_fields_set and made.replay_problem:
        raise CatalogueError(f"webhook.security.sources.{tool}: {made.replay_problem}")
    return made


def _told(error: ValidationError) -> str:
    problems = []
    for detail in error.errors():
        where, said = ".".join(map(str, detail["loc"])), detail["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {said}" if where else said)
    return "; ".join(problems).replace("\n", " ")


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
        raise CatalogueError(f"sources/{file.name}: {_told(error)}") from None
