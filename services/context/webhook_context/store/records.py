"""The stored forms: what is sealed, under which binding, and how it is written down.

Every sealed object is bound to its tenant, its context and its place in it, so that none can be put
somewhere else. Events share a data key for a while, which makes an append a third cheaper (README);
snapshots, enrichments and vectors, of which a context has one each, have a data key of their own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webhook.context.v1.context_pb2 import Enrichment
from webhook.context.v1.context_service_pb2 import Append, Revision
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import UnknownFormat

from webhook_context.domain.contexts import AsOf, Entry, Facts, Link, Stated

SNAPSHOT_FORMAT = 1
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Records:
    """Seals and opens the parts of contexts; the tenants' keys must be prepared.

    All `open_*` raise `EnvelopeError` where the bytes are not what was sealed there.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal_event(self, entry: Entry) -> tuple[bytes, bytes]:
        """What is said and the payload (empty where there is none), sealed apart."""
        sealed = self._keyring.seal(entry.tenant, entry.record, "event", entry.context_id, entry.event_id)
        if not entry.payload:
            return sealed, b""
        binding = ("payload", entry.context_id, entry.event_id)
        return sealed, self._keyring.seal(entry.tenant, entry.payload, *binding, dictionary=entry.tool)

    def seal_record(self, tenant: str, context_id: str, event_id: str, record: bytes) -> bytes:
        """What was said, as `open_record` gave it."""
        return self._keyring.seal(tenant, record, "event", context_id, event_id)

    def seal_payload(self, tenant: str, context_id: str, event_id: str, payload: bytes, tool: str) -> bytes:
        """A payload, as `open_payload` gave it."""
        return self._keyring.seal(tenant, payload, "payload", context_id, event_id, dictionary=tool)

    def open_record(self, tenant: str, context_id: str, event_id: str, sealed: bytes) -> bytes:
        """What was said, serialised."""
        return self._keyring.open(tenant, sealed, "event", context_id, event_id)

    def open_event(self, tenant: str, context_id: str, event_id: str, sealed: bytes) -> Append:
        """What was said, without the payload."""
        return Append.FromString(self.open_record(tenant, context_id, event_id, sealed))

    def open_payload(self, tenant: str, context_id: str, event_id: str, sealed: bytes) -> bytes:
        """The body as received."""
        return self._keyring.open(tenant, sealed, "payload", context_id, event_id)

    def seal_snapshot(self, tenant: str, context_id: str, facts: Facts) -> bytes:
        """What the folded events say together."""
        return self._keyring.seal(tenant, facts_json(facts), "snapshot", context_id, fresh=True)

    def open_snapshot(self, tenant: str, context_id: str, sealed: bytes) -> Facts:
        """What the folded events say together."""
        return facts_of(self._keyring.open(tenant, sealed, "snapshot", context_id))

    def seal_enrichment(
        self, tenant: str, context_id: str, enrichment: Enrichment
    ) -> tuple[bytes, bytes | None]:
        """The enrichment without its vector, and the vector where it has one."""
        vector = _narrow(np.asarray(enrichment.vector, dtype="<f4"))
        bare = Enrichment()
        bare.CopyFrom(enrichment)
        bare.ClearField("vector")
        content = bare.SerializeToString()
        sealed = self._keyring.seal(tenant, content, "enrichment", context_id, fresh=True)
        if not vector.size:
            return sealed, None
        return sealed, self._keyring.seal(tenant, vector.tobytes(), "vector", context_id, fresh=True)

    def open_enrichment(self, tenant: str, context_id: str, sealed: bytes) -> Enrichment:
        """The enrichment without its vector."""
        return Enrichment.FromString(self._keyring.open(tenant, sealed, "enrichment", context_id))

    def open_vector(self, tenant: str, context_id: str, sealed: bytes, dimension: int) -> list[float]:
        """The vector of an enrichment, which tells its dimension."""
        content = self._keyring.open(tenant, sealed, "vector", context_id)
        numbers = "<f4" if len(content) == 4 * dimension else "<f2"
        vector: list[float] = np.frombuffer(content, dtype=numbers).tolist()
        return vector

    def seal_excerpt(self, tenant: str, context_id: str, texts: Sequence[str]) -> bytes:
        """The newest texts of a packed context, oldest first: what the search index reads of them."""
        content = json.dumps(texts, ensure_ascii=False).encode()
        return self._keyring.seal(tenant, content, "excerpt", context_id, fresh=True)

    def open_excerpt(self, tenant: str, context_id: str, sealed: bytes) -> list[str]:
        """The newest texts of a packed context, oldest first."""
        texts: list[str] = json.loads(self._keyring.open(tenant, sealed, "excerpt", context_id))
        return texts

    def seal_revision(self, tenant: str, context_id: str, revision: Revision) -> bytes:
        """A change by hand."""
        content = revision.SerializeToString()
        return self._keyring.seal(tenant, content, "revision", context_id, fresh=True)

    def open_revision(self, tenant: str, context_id: str, sealed: bytes) -> Revision:
        """A change by hand."""
        return Revision.FromString(self._keyring.open(tenant, sealed, "revision", context_id))


def _narrow(vector: NDArray[np.float32]) -> NDArray[np.float16] | NDArray[np.float32]:
    # Half the room for a thousandth of similarity. What is no unit vector may be out of reach.
    return vector.astype("<f2") if np.abs(vector).max(initial=0) <= _LARGEST_HALF else vector


def facts_json(facts: Facts) -> bytes:
    """What events and edits say together, as a snapshot and a pack have it."""
    return json.dumps(_to_plain(facts), ensure_ascii=False, separators=(",", ":")).encode()


def facts_of(written: bytes) -> Facts:
    """What `facts_json` wrote.

    Raises:
        UnknownFormat: Of a newer version.
    """
    return _from_plain(json.loads(written))


def _to_plain(facts: Facts) -> dict[str, Any]:
    return {
        "format": SNAPSHOT_FORMAT,
        "words": {name: [held.value, *held.as_of] for name, held in facts.words.items()},
        "labels": [list(facts.labels.value), *facts.labels.as_of],
        "actors": [[actor, *as_of] for actor, as_of in facts.actors.items()],
        "links": [[*link, *as_of] for link, as_of in facts.links.items()],
        "attributes": facts.attributes,
    }


def _from_plain(plain: dict[str, Any]) -> Facts:
    match plain:
        case {
            "format": 1,
            "words": dict(words),
            "labels": [list(labels), labels_us, labels_id],
            "actors": list(actors),
            "links": list(links),
        }:
            return Facts(
                words={name: Stated(value, AsOf(us, by)) for name, (value, us, by) in words.items()},
                labels=Stated(tuple(labels), AsOf(labels_us, labels_id)),
                actors={actor: AsOf(us, by) for actor, us, by in actors},
                links={Link(relation, to): AsOf(us, by) for relation, to, us, by in links},
                attributes=plain.get("attributes", {}),
            )
    raise UnknownFormat(f"snapshot format {plain.get('format')}")
