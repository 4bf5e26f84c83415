"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import base64
import datetime as dt
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from webhook_ops.plain_text import visible

#: Stands where there is no value.
NONE = "-"

#: Wide enough that nothing is cut where nobody looks at the columns.
_PIPE_WIDTH = 240


def console(*, stderr: bool = False) -> Console:
    """Standard output, or standard error: as wide as the terminal, and uncut in a pipe."""
    file = sys.stderr if stderr else sys.stdout
    return Console(file=file, width=None if file.isatty() else _PIPE_WIDTH, highlight=False, soft_wrap=False)


def print_json(tree: object) -> None:
    """One JSON document."""
    sys.stdout.write(orjson.dumps(tree, option=orjson.OPT_INDENT_2).decode() + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A plain table; values are text, never markup."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(str(cell)) for cell in row))
    return made


def text(value: str, style: str = "") -> Text:
    """A stranger's text as it stands, harmless."""
    return Text(visible(value, keep="\n"), style=style)


def to_plain(message: Message) -> dict[str, Any]:
    """A message as JSON: every field by its name in the contract, absent ones too.

    Times are RFC 3339, durations seconds, enums their names, 64-bit numbers numbers, bytes text where they
    are UTF-8 and else `{"base64": ...}`.
    """
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def moment(stamp: Timestamp) -> str:
    """Local time, or a dash where there is none."""
    if not stamp.seconds:
        return NONE
    return stamp.ToDatetime(tzinfo=dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def seconds(duration: Duration) -> float:
    """A duration in seconds."""
    return duration.ToNanoseconds() / 1_000_000_000


# `field` is a FieldDescriptor: of the one class or the other, as the protobuf runtime has it.


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_value(item, field) for item in value]
    if field.message_type is not None and not message.HasField(field.name):
        return None
    return _value(value, field)


def _value(value: Any, field: Any) -> Any:
    if isinstance(value, Timestamp):
        return value.ToJsonString()
    if isinstance(value, Duration):
        return seconds(value)
    if isinstance(value, Message):
        return to_plain(value)
    if isinstance(value, bytes):
        return _bytes(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value


def _bytes(value: bytes) -> Any:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}
