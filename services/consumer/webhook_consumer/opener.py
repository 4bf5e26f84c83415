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

ANOTHER_EVENT = Dead(Cause.UNDECODABLE, "what was sealed is another event")

Opened = WebhookEvent | Retry | Dead


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
        await self._prepare(entries)
        openings = _Openings(self._keyring)
        has_looked_again = False
        for at, entry in enumerate(entries):
            opened = _opened(entry, openings)
            if type(opened) is Retry and not has_looked_again:
                # Another process may have made a key since we read the table. What else is missing in this
                # batch is found out first, so that one look is enough.
                has_looked_again = True
                for other in entries[at + 1 :]:
                    _opened(other, openings)
                await self._prepare(entries[at:])
                openings = _Openings(self._keyring)
                opened = _opened(entry, openings)
            take(at, opened)
            del opened

    async def _prepare(self, entries: Sequence[Entry]) -> None:
        for tenant in {fields.get(b"tenant") for _, fields, _ in entries}:
            # Only for what looks like ours: preparing makes a key where the tenant has none.
            if tenant is None or not any(_is_sealed_for(tenant, entry) for entry in entries):
                continue
            try:
                await self._keyring.prepare([tenant.decode()])
            except UnicodeDecodeError:
                continue  # No tenant of ours; opening says so.
            except UnknownKey:
                continue  # Destroyed for good; opening says so, entry by entry.
            except QUEUE_TROUBLE as error:
                raise Outage(f"the tenants' keys can't be read ({type(error).__name__})") from error


class _Openings(dict[bytes, tuple[str, Opening]]):
    """By tenant, its name and what opens its events in this batch."""

    def __init__(self, keyring: Keyring) -> None:
        super().__init__()
        self._keyring = keyring

    def __missing__(self, tenant: bytes) -> tuple[str, Opening]:
        name = tenant.decode()
        self[tenant] = made = name, self._keyring.opening(name, "event")
        return made


def _opened(entry: Entry, openings: _Openings) -> Opened:
    fields = entry.fields
    try:
        name, schema = fields[b"id"], fields[b"schema"]
        sealed, event_id = fields[b"sealed"], name.decode()
        tenant, opening = openings[fields[b"tenant"]]
    except (KeyError, UnicodeDecodeError):
        return Dead(Cause.UNDECODABLE, "not an event: it lacks id, tenant, schema or sealed")
    if schema != SCHEMA:
        return _of_another_version(schema)
    try:
        event = WebhookEvent.FromString(opening.open(sealed, name))
    except (UnknownKey, UnknownFormat) as error:
        return Retry(str(error), failure=Failure.UNREADABLE)
    except Undecodable as error:
        return Dead(Cause.UNDECODABLE, str(error))
    except DecodeError:
        return Dead(Cause.UNDECODABLE, "what was sealed is not a WebhookEvent")
    return event if event.id == event_id and event.tenant == tenant else ANOTHER_EVENT


def _is_sealed_for(tenant: bytes, entry: Entry) -> bool:
    fields = entry.fields
    return fields.get(b"tenant") == tenant and fields.get(b"sealed", b"").startswith(MAGIC)


def _of_another_version(schema: bytes) -> Retry | Dead:
    if schema.isdigit():
        # While versions are rolled out, a newer consumer may read it.
        detail = f"schema {schema.decode()} is not known to this version"
        return Retry(detail, failure=Failure.UNREADABLE)
    return Dead(Cause.UNDECODABLE, "not an event: its schema is no number")
