"""The names of everything in Redis.

All keys of one context share a hash slot: the braces around tenant and id are the tag. Ids come from
senders, so what has a meaning in a key is escaped, and no two contexts can meet in one key.
"""

from __future__ import annotations

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


def revisions(tenant: str, context_id: str) -> str:
    """LIST: what was changed by hand, sealed, the newest first."""
    return f"{context(tenant, context_id)}:revisions"


def due(tenant: str) -> str:
    """ZSET: context ids by when their next transition is due, Unix milliseconds."""
    return f"ctxdue:{{{tenant.translate(_IN_TENANT)}}}"


def index(tenant: str) -> str:
    """ZSET: context ids by the time of their last change, Unix milliseconds."""
    return f"ctxidx:{{{tenant.translate(_IN_TENANT)}}}"
