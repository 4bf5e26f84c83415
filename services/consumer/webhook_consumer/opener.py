"""Opens sealed events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.sealing.envelope import MAGIC, Keyring, Opening
from webhook_shared.sealing.errors import Undecodable, UnknownFormat, UnknownKey

from webhook_consumer.entry import Cause, Dead, Entry, Failure, Outage, Retry
from webhook_consumer.queue.redis import QUEUE_TROUBLE

SCHEMA = b"1"

NOT_AN_EVENT = Dead(Cause.UNDECODABLE, "not an event: it lacks id, tenant, schema or sealed")
NOT_AN_ENVELOPE = Dead(Cause.UNDECODABLE, "not an envelope")
ANOTHER_EVENT = Dead(Cause.UNDECODABLE, "what was sealed is another event")

Opened = WebhookEvent | Retry | Dead
_Openings = dict[bytes, tuple[str, Opening]]
"""By tenant."""


class Opener:
    """Opens the events of a batch, each on its own account."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    async def open(self, entries: Sequence[Entry]) -> list[Opened]:
        """Per entry, in order: the event, or why there is none.

        Raises:
            Outage: The tenants' keys can't be read.
        """
        found: list[Opened] = []
        await self.each(entries, lambda _, opened: found.append(opened))
        return found

    async def each(self, entries: Sequence[Entry], take: Callable[[int, Opened], object]) -> None:
        """As `open`, one by one: `take` is given each with its place.

        An event that is let go of leaves its memory to the next one, which is faster by a tenth: all of a
        batch at once are more than the caches of a processor hold.

        Raises:
            As `open`.
        """
        openings: _Openings = {}
        looked_again: set[bytes] = set()
        for at, entry in enumerate(entries):
            opened = _opened(entry, openings)
            if opened is None:
                opened = await self._prepared(entry, openings)
            if type(opened) is Retry and entry.fields[b"tenant"] in openings.keys() - looked_again:
                # Another process may have made a key since we read the table. What else the tenant lacks in
                # this batch is found out first, so that one look is enough.
                looked_again.add(entry.fields[b"tenant"])
                for other in entries[at + 1 :]:
                    _opened(other, openings)
                opened = await self._prepared(entry, openings)
            take(at, opened)
            del opened

    async def _prepared(self, entry: Entry, openings: _Openings) -> Opened:
        """What opening gives once the keys of the tenant are at hand."""
        tenant = entry.fields[b"tenant"]
        try:
            name = tenant.decode()
            # Preparing makes a key where the tenant has none: only for what looks like ours.
            if not entry.fields[b"sealed"].startswith(MAGIC):
                return NOT_AN_ENVELOPE
            await self._keyring.prepare([name])
        except UnicodeDecodeError:
            return NOT_AN_EVENT
        except UnknownKey:
            pass  # Destroyed for good; opening says so, entry by entry.
        except QUEUE_TROUBLE as error:
            raise Outage(f"the tenants' keys can't be read ({type(error).__name__})") from error
        openings[tenant] = name, self._keyring.opening(name, "event")
        return _opened(entry, openings) or NOT_AN_EVENT


def _opened(entry: Entry, openings: _Openings) -> Opened | None:
    """The event, or why there is none; None where its tenant's keys are to be prepared first."""
    fields = entry.fields
    try:
        name, schema = fields[b"id"], fields[b"schema"]
        sealed, event_id, owner = fields[b"sealed"], name.decode(), fields[b"tenant"]
    except (KeyError, UnicodeDecodeError):
        return NOT_AN_EVENT
    if schema != SCHEMA:
        return _of_another_version(schema)
    known = openings.get(owner)
    if known is None:
        return None
    tenant, opening = known
    try:
        event = WebhookEvent.FromString(opening.open(sealed, name))
    except (UnknownKey, UnknownFormat) as error:
        return Retry(str(error), failure=Failure.UNREADABLE)
    except (Undecodable, DecodeError) as error:
        what = "what was sealed is not a WebhookEvent" if isinstance(error, DecodeError) else str(error)
        return Dead(Cause.UNDECODABLE, what)
    return event if event.id == event_id and event.tenant == tenant else ANOTHER_EVENT


def _of_another_version(schema: bytes) -> Retry | Dead:
    if schema.isdigit():
        # While versions are rolled out, a newer consumer may read it.
        detail = f"schema {schema.decode()} is not known to this version"
        return Retry(detail, failure=Failure.UNREADABLE)
    return Dead(Cause.UNDECODABLE, "not an event: its schema is no number")
