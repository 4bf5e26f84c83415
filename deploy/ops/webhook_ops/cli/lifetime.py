"""Durations on the command line: 90s, 12h, 30d."""

from __future__ import annotations

import datetime as dt

import typer
from pydantic import TypeAdapter, ValidationError
from webhook_shared.settings import Duration

_DURATION: TypeAdapter[dt.timedelta] = TypeAdapter(Duration)


def lifetime(value: str) -> dt.timedelta:
    """The duration that an option names.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        return _DURATION.validate_python(value)
    except ValidationError:
        raise typer.BadParameter("write a duration as 12h, 30d...") from None
