"""Recorded traces of contexts in use: one JSON object per line.

    {"time": "2026-11-23T09:30:00Z", "tenant": "acme", "kind": "access",
     "context_id": "github:octo/hello:pull_request:42", "actor": "mona",
     "links": ["github:octo/hello:issue:7"]}

`time` may also be Unix seconds. `tenant`, `actor` and `links` may be left out.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from webhook_intelligence.prediction.observations import (
    ACTOR_CHARS,
    CONTEXT_ID_CHARS,
    MOST_LINKS,
    Observation,
    ObservationKind,
)

DEFAULT_TENANT = "default"


class TraceError(ValueError):
    """A line that is no observation; the message says which and why."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    time: AwareDatetime | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    tenant: str = Field(DEFAULT_TENANT, min_length=1)
    kind: ObservationKind
    context_id: str = Field(min_length=1, max_length=CONTEXT_ID_CHARS)
    actor: str = Field("", max_length=ACTOR_CHARS)
    links: tuple[Annotated[str, Field(min_length=1, max_length=CONTEXT_ID_CHARS)], ...] = Field(
        (), max_length=MOST_LINKS
    )


def read(lines: Iterable[str]) -> Iterator[tuple[str, Observation]]:
    """Tenant and observation of each line; blank lines are passed over.

    Raises:
        TraceError: With the number of the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found = _Line.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][:1]))
            raise TraceError(f"line {number}: {f'{where}: ' if where else ''}{first['msg']}") from None
        at_s = found.time.timestamp() if isinstance(found.time, dt.datetime) else found.time
        yield (
            found.tenant,
            Observation(at_s, found.kind, found.context_id, found.actor, found.links),
        )


def plain(tenant: str, seen: Observation) -> dict[str, Any]:
    """An observation as a line has it."""
    return {
        "time": seen.at_s,
        "tenant": tenant,
        "kind": seen.kind.value,
        "context_id": seen.context_id,
        "actor": seen.actor,
        "links": list(seen.links),
    }
