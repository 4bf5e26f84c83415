"""The names of everything in Redis.

All keys of one context share a hash slot: the braces around tenant and id are the tag. Ids come from
senders, so what has a meaning in a key is escaped, and no two contexts can meet in one key.
"""

from __future__ import annotations

from webhook_shared.redis.scanning import literal

TENANTS = "ctxtenants"
"""SET of every tenant that has or had a context."""

CHANGES = "context-changes"
"""STREAM of (tenant, context id, version), for the search indexes of all replicas."""

ENRICHMENT = "webhook-enrichment"
"""STREAM of contexts that wait for enrichment; the consumer reads it."""

SWEEP = "ctxsweep"
"""STRING: is there until the next sweep for unscheduled contexts."""

ORPHANS = "ctxorphans"
"""ZSET: objects of the cold store that nothing points to, by when that was first seen, Unix milliseconds."""

ORPHANS_TURN = "ctxorphansturn"
"""STRING: is there until the cold store is next looked through."""

PRESSURE = "ctxpressure"
"""STRING: is there while some replica makes room."""

ERASED_NAMES = "ctxerasednames"
"""HASH: digests of the names of subjects that were erased, and when, Unix milliseconds."""

RETENTION_TURN = "ctxretentionturn"
"""STRING: is there until contexts are next looked through for those that have been kept for long enough."""

_IN_TENANT = str.maketrans({"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"})
_IN_ID = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def context(tenant: str, context_id: str) -> str:
    """HASH: the truth of one context."""
    return f"ctx:{{{tenant.translate(_IN_TENANT)}:{context_id.translate(_IN_ID)}}}"


def order(tenant: str, context_id: str) -> str:
    """LIST: the ids of its events in the order of arrival."""
    return f"{context(tenant, context_id)}:order"


def packs(tenant: str, context_id: str) -> str:
    """HASH: its packs in the warm tier, by name."""
    return f"{context(tenant, context_id)}:packs"


def parts(tenant: str, context_id: str) -> list[str]:
    """What a reading needs: the truth, the order of events, the packs."""
    truth = context(tenant, context_id)
    return [truth, f"{truth}:order", f"{truth}:packs"]


def revisions(tenant: str, context_id: str) -> str:
    """LIST: what was changed by hand, sealed, the newest first."""
    return f"{context(tenant, context_id)}:revisions"


def due(tenant: str) -> str:
    """ZSET: context ids by when their next transition is due, Unix milliseconds."""
    return f"ctxdue:{{{tenant.translate(_IN_TENANT)}}}"


def index(tenant: str) -> str:
    """ZSET: context ids by the time of their last change, Unix milliseconds."""
    return f"ctxidx:{{{tenant.translate(_IN_TENANT)}}}"


def foreseen(tenant: str) -> str:
    """HASH: what waits for its predicted use: context ids to rule, where it came from, and when."""
    return f"ctxforeseen:{{{tenant.translate(_IN_TENANT)}}}"


def foreseen_until(tenant: str) -> str:
    """ZSET: the same ids by when they have waited long enough, Unix milliseconds."""
    return f"ctxforeseenuntil:{{{tenant.translate(_IN_TENANT)}}}"


def foreseen_rules(tenant: str) -> str:
    """HASH: each rule of prediction to how often what it named was used and was not; old counts fade."""
    return f"ctxforeseenrules:{{{tenant.translate(_IN_TENANT)}}}"


def segments(tenant: str) -> str:
    """ZSET: segments of the cold store by when to look at them next, Unix milliseconds."""
    return f"ctxsegments:{{{tenant.translate(_IN_TENANT)}}}"


def segment(tenant: str, segment_id: str) -> str:
    """HASH: what is known of a segment: its size, what of it lives, where the keys of its members lie."""
    return f"ctxsegment:{{{tenant.translate(_IN_TENANT)}}}:{segment_id}"


def segment_stale(tenant: str, segment_id: str) -> str:
    """ZSET: objects beside a segment that count no more, by when to delete them, Unix milliseconds."""
    return f"{segment(tenant, segment_id)}:stale"


def all_of(tenant: str) -> str:
    """A pattern that all keys above match that are of this tenant, and no others."""
    return f"ctx*{{{literal(tenant.translate(_IN_TENANT))}[:}}]*"


def usage(tenant: str) -> str:
    """HASH: `bytes` that a tenant's contexts have, where they are limited; `since` the counting began."""
    return f"ctxusage:{{{tenant.translate(_IN_TENANT)}}}"


def usage_turn(tenant: str) -> str:
    """STRING: is there until they are next counted anew."""
    return f"{usage(tenant)}:turn"


def about_to_be(tenant: str) -> str:
    """ZSET: ids of contexts that have room and are not in the list yet, by since when, Unix milliseconds."""
    return f"{usage(tenant)}:about"
