"""Opens sealed events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.envelope import MAGIC, Envelope, EnvelopeError, Keyring, UnknownFormat, UnknownKey

from webhook_consumer.entry import Cause, Dead, Entry, Outage, Retry
from webhook_consumer.queue_redis import QUEUE_TROUBLE

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
        await self._prepare(entries)
        opened = self._open(entries)
        keyless = [at for at, result in enumerate(opened) if isinstance(result, Retry)]
        if keyless:
            # Another process may have made a key since we read the table.
            again = [entries[at] for at in keyless]
            await self._prepare(again)
            for at, result in zip(keyless, self._open(again), strict=True):
                opened[at] = result
        return opened

    async def _prepare(self, entries: Iterable[Entry]) -> None:
        # Only for what looks like ours: preparing makes a key where the tenant has none.
        tenants = {
            entry.fields[b"tenant"]
            for entry in entries
            if entry.fields.get(b"sealed", b"")[:4] == MAGIC and b"tenant" in entry.fields
        }
        for tenant in tenants:
            try:
                await self._keyring.prepare([tenant.decode()])
            except UnicodeDecodeError:
                continue  # No tenant of ours; opening says so.
            except UnknownKey:
                continue  # Destroyed for good; opening says so, entry by entry.
            except QUEUE_TROUBLE as error:
                raise Outage(f"the tenants' keys can't be read ({type(error).__name__})") from error

    def _open(self, entries: Sequence[Entry]) -> list[Opened]:
        read = [_envelope(entry) for entry in entries]
        envelopes = [each for each in read if isinstance(each, Envelope)]
        contents = iter(self._keyring.open_all(envelopes))
        return [_event(each, next(contents)) if isinstance(each, Envelope) else each for each in read]


def _envelope(entry: Entry) -> Envelope | Retry | Dead:
    fields = entry.fields
    try:
        tenant, event_id = fields[b"tenant"].decode(), fields[b"id"].decode()
        sealed, schema = fields[b"sealed"], fields[b"schema"]
    except (KeyError, UnicodeDecodeError):
        return Dead(Cause.UNDECODABLE, "not an event: it lacks id, tenant, schema or sealed")
    if schema != SCHEMA:
        return _of_another_version(schema)
    return Envelope(tenant, sealed, ("event", event_id))


def _event(envelope: Envelope, content: bytes | EnvelopeError) -> Opened:
    if isinstance(content, (UnknownKey, UnknownFormat)):
        return Retry(str(content))
    if isinstance(content, EnvelopeError):
        return Dead(Cause.UNDECODABLE, str(content))
    try:
        event = WebhookEvent.FromString(content)
    except DecodeError:
        return Dead(Cause.UNDECODABLE, "what was sealed is not a WebhookEvent")
    return event if event.id == envelope.binding[1] and event.tenant == envelope.tenant else ANOTHER_EVENT


def _of_another_version(schema: bytes) -> Retry | Dead:
    if schema.isdigit():
        # While versions are rolled out, a newer consumer may read it.
        return Retry(f"schema {schema.decode()} is not known to this version")
    return Dead(Cause.UNDECODABLE, "not an event: its schema is no number")
