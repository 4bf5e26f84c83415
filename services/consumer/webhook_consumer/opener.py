"""Opens sealed events."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.envelope import MAGIC, Keyring, Undecodable, UnknownFormat, UnknownKey

from webhook_consumer.entry import Cause, Dead, Entry, Failure, Outage, Retry
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
        opened = [self._open(entry) for entry in entries]
        keyless = [at for at, result in enumerate(opened) if isinstance(result, Retry)]
        if keyless:
            # Another process may have made a key since we read the table.
            await self._prepare([entries[at] for at in keyless])
            for at in keyless:
                opened[at] = self._open(entries[at])
        return opened

    async def _prepare(self, entries: Sequence[Entry]) -> None:
        for tenant in {entry.fields.get(b"tenant") for entry in entries}:
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

    def _open(self, entry: Entry) -> Opened:
        try:
            fields = entry.fields
            tenant, event_id = fields[b"tenant"].decode(), fields[b"id"].decode()
            sealed, schema = fields[b"sealed"], fields[b"schema"]
        except (KeyError, UnicodeDecodeError):
            return Dead(Cause.UNDECODABLE, "not an event: it lacks id, tenant, schema or sealed")
        if schema != SCHEMA:
            return _of_another_version(schema)
        try:
            event = WebhookEvent.FromString(self._keyring.open(tenant, sealed, "event", event_id))
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
