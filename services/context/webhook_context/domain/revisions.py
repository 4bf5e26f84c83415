"""What was changed by hand: the bounded history of a context.

Events are a history of their own, and all of them are kept. What they can't tell is what people and
programs said in between; of that the latest changes are kept, each with how the context read after it.
"""

from __future__ import annotations

import json

from webhook.context.v1.context_service_pb2 import Revision

from webhook_context.domain.contexts import Change, Context


def revision_of(change: Change, revised: Context) -> Revision:
    """How a context reads after a change to it."""
    enrichment = change.enrichment or revised.enrichment
    revision = Revision(
        version=revised.version + 1,
        request_id=change.request_id,
        changed=change.names(),
        title=revised.facts.word("title"),
        labels=revised.facts.labels.value,
        pinned=revised.pinned,
        attributes_json=attributes_json(revised),
        summary=enrichment.summary if enrichment else "",
    )
    revision.update_time.GetCurrentTime()
    return revision


def attributes_json(context: Context) -> str:
    """The attributes of a context as the contract has them; empty where it has none."""
    attributes = context.facts.attributes
    return json.dumps(attributes, ensure_ascii=False, separators=(",", ":")) if attributes else ""
