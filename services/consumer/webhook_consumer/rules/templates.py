"""Templates: text with `{placeholders}`, complete or not used at all.

A placeholder is `{path|path:filter}`: the first path that yields text, after its filters. A guard ends in `?`
and writes nothing: `{path?}` there is something, `{!path?}` there is nothing, `{path=a,b?}` it reads a or b,
`{path!=a,b?}` it reads otherwise. A template with an empty placeholder, or a guard that does not hold, yields
nothing; of several alternatives the first complete one is used.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from webhook_consumer.rules.filters import FILTERS
from webhook_consumer.rules.paths import Path, Scope
from webhook_consumer.rules.values import TEXT_LIMIT_BYTES, as_text

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_INSIDE = re.compile(
    r"(?P<absent>!)?(?P<paths>[^:=!?{}]+)(?P<filters>(?::[a-z]+)*)"
    r"(?P<compare>(?P<sense>!?=)(?P<words>[^?]+))?(?P<guard>\?)?"
)

Filter = Callable[[object], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """A placeholder that writes a value."""

    paths: tuple[Path, ...]
    filters: tuple[Filter, ...]

    def read(self, scope: Scope) -> str:
        """The text of the first path that has any; "" where none has."""
        for path in self.paths:
            value = path.read(scope)
            if value is None:
                continue
            for apply in self.filters:
                value = apply(value)
            if text := (value if type(value) is str else as_text(value)).strip():
                return text[:TEXT_LIMIT_BYTES]
        return ""


@dataclass(frozen=True, slots=True)
class Guard:
    """A placeholder that only decides. `words` None: is anything there? Else: does it read one of them?"""

    slot: Slot
    words: frozenset[str] | None
    expected: bool

    def holds(self, scope: Scope) -> bool:
        """Whether the template may be used."""
        if self.words is None:
            return self._present(scope) is self.expected
        return (self.slot.read(scope) in self.words) is self.expected

    def _present(self, scope: Scope) -> bool:
        if self.slot.filters:
            return bool(self.slot.read(scope))
        return any(path.read(scope) for path in self.slot.paths)


@dataclass(frozen=True, slots=True)
class Template:
    """Text with slots, and the guards that let it be used."""

    guards: tuple[Guard, ...]
    parts: tuple[str | Slot, ...]

    @classmethod
    def parse(cls, source: str) -> "Template":
        """Compiles a template; raises ValueError naming what is wrong with it."""
        guards: list[Guard] = []
        parts: list[str | Slot] = []
        for index, piece in enumerate(_PLACEHOLDER.split(source)):
            if index % 2 == 0:
                if "{" in piece or "}" in piece:
                    raise ValueError(f"{source!r} has a brace without its other half")
                if piece:
                    parts.append(piece)
                continue
            placeholder = _placeholder(piece)
            if isinstance(placeholder, Guard):
                guards.append(placeholder)
            else:
                parts.append(placeholder)
        return cls(tuple(guards), tuple(parts))

    def fill(self, scope: Scope, encode: Callable[[str], str] | None = None) -> str | None:
        """The text, each value passed through `encode`; None where the template is not complete."""
        for guard in self.guards:
            if not guard.holds(scope):
                return None
        pieces: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            text = part.read(scope)
            if not text:
                return None
            pieces.append(encode(text) if encode else text)
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives in their order."""

    templates: tuple[Template, ...] = ()

    @classmethod
    def parse(cls, source: object) -> "Choice":
        """Compiles one template or a list of them; raises ValueError."""
        sources = source if isinstance(source, list) else [source]
        return cls(tuple(Template.parse(_string(each)) for each in sources))

    def fill(self, scope: Scope, encode: Callable[[str], str] | None = None) -> str:
        """The first complete template's text; "" where none is complete."""
        for template in self.templates:
            text = template.fill(scope, encode)
            if text is not None:
                return text
        return ""


def _placeholder(inside: str) -> Slot | Guard:
    match = _INSIDE.fullmatch(inside)
    if match is None:
        raise ValueError(f"{{{inside}}} is no placeholder")
    filters: list[Filter] = []
    for name in match["filters"].split(":")[1:]:
        if name not in FILTERS:
            known = ", ".join(sorted(FILTERS))
            raise ValueError(f"{{{inside}}} names no filter: {name!r}; there are {known}")
        filters.append(FILTERS[name])
    slot = Slot(tuple(Path.parse(path) for path in match["paths"].split("|")), tuple(filters))
    decides = bool(match["absent"] or match["compare"])
    if not match["guard"]:
        if decides:
            raise ValueError(f"{{{inside}}} compares: a guard ends in '?'")
        return slot
    words = frozenset(match["words"].split(",")) if match["compare"] else None
    return Guard(slot, words, expected=not match["absent"] and match["sense"] != "!=")


def _string(source: object) -> str:
    if not isinstance(source, str):
        raise ValueError(f"{source!r} is not text; quote it")
    return source
