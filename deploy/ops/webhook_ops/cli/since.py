"""`--since`: an age (2h, 7d) or a time (2026-11-22, 2026-11-22T14:00:00Z)."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import TypeAdapter, ValidationError
from webhook_shared.settings import Duration

_AGE: TypeAdapter[dt.timedelta] = TypeAdapter(Duration)


def _moment(value: str) -> str:
    since(value)
    return value


Since = Annotated[
    str,
    typer.Option(
        "--since", callback=_moment, help="Not older: 30m, 2h, 7d, or a time as 2026-11-22T14:00:00Z."
    ),
]

Until = Annotated[
    str,
    typer.Option("--until", callback=_moment, help="Older: 30m, 2h, 7d, or a time as 2026-11-22T14:00:00Z."),
]


def since(value: str) -> Timestamp | None:
    """The moment that an option names; local time where it names no zone. None where it is empty.

    Raises:
        typer.BadParameter: It is neither an age nor a time.
    """
    if not value:
        return None
    stamp = Timestamp()
    try:
        moment = dt.datetime.now(dt.UTC) - _AGE.validate_python(value)
    except ValidationError:
        try:
            moment = dt.datetime.fromisoformat(value).astimezone(dt.UTC)
        except ValueError:
            raise typer.BadParameter("write an age as 2h, or a time as 2026-11-22T14:00:00Z") from None
    stamp.FromDatetime(moment)
    return stamp
