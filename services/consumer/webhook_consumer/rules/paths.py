"""Paths into JSON: `issue.labels[].name` of the payload, `.name` of an item, `@tool` of the envelope."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from webhook_consumer.rules.values import LIST_LIMIT_ITEMS

_STEP = re.compile(r"(?P<key>[A-Za-z0-9_-]+)(?P<fan>(?:\[\])?)")
_INDEX = re.compile(r"-?\d{1,4}")


@dataclass(slots=True)
class Scope:
    """What the paths of a rule read from.

    Attributes:
        payload: The webhook's parsed body.
        envelope: What is known besides the body: tool, type, action, delivery_id...
        item: The item at hand where a rule goes through a list.
    """

    payload: object
    envelope: Mapping[str, object]
    item: object = None


@dataclass(frozen=True, slots=True)
class Path:
    """A compiled path: where it starts, the keys up to the first `[]`, and those after each `[]`."""

    origin: Literal["payload", "envelope", "item"]
    keys: tuple[str, ...]
    fans: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, source: str) -> "Path":
        """Compiles a path; raises ValueError where it is none."""
        origin: Literal["payload", "envelope", "item"] = "payload"
        rest = source
        if source.startswith("@"):
            origin, rest = "envelope", source[1:]
        elif source.startswith("."):
            origin, rest = "item", source[1:]
            if not rest:
                return cls("item", (), ())
        runs: list[tuple[str, ...]] = []
        run: list[str] = []
        for step in rest.split("."):
            match = _STEP.fullmatch(step)
            if match is None:
                raise ValueError(f"{source!r} is not a path: {step!r} is no key")
            run.append(match["key"])
            if match["fan"]:
                runs.append(tuple(run))
                run = []
        runs.append(tuple(run))
        return cls(origin, runs[0], tuple(runs[1:]))

    def read(self, scope: Scope) -> object:
        """The value there; None where the way is blocked; a list where the path has `[]`."""
        value = getattr(scope, self.origin)
        # `_walk`, without the call: these are the hottest lines of the normaliser.
        for key in self.keys:
            if type(value) is dict:
                value = value.get(key)
            elif type(value) is list:
                value = _member(value, key)
            else:
                return None
        for keys in self.fans:
            value = _fan(value, keys)
        return value

    def items(self, scope: Scope) -> list[object]:
        """A list's items there, or an object's pairs as `key` and `value`, or the one value."""
        value = self.read(scope)
        if isinstance(value, list):
            return value
        if isinstance(value, dict):
            return [{"key": key, "value": member} for key, member in islice(value.items(), LIST_LIMIT_ITEMS)]
        return [] if value is None else [value]


def _walk(value: object, keys: tuple[str, ...]) -> object:
    # What the JSON parser makes is never a subclass, so the exact type will do.
    for key in keys:
        if type(value) is dict:
            value = value.get(key)
        elif type(value) is list:
            value = _member(value, key)
        else:
            return None
    return value


def _member(values: list[object], key: str) -> object:
    if _INDEX.fullmatch(key) and -len(values) <= int(key) < len(values):
        return values[int(key)]
    return None


def _fan(value: object, keys: tuple[str, ...]) -> object:
    if not isinstance(value, list):
        return None
    found: list[object] = []
    for item in islice(value, LIST_LIMIT_ITEMS):
        member = _walk(item, keys)
        if isinstance(member, list):
            found.extend(member[:LIST_LIMIT_ITEMS])
        elif member is not None:
            found.append(member)
    return found
