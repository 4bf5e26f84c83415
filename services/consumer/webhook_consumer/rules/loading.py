"""Reads rule files, and refuses what does not fit, by file and key."""

import re
from collections.abc import Callable, Iterable, Mapping
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

import yaml

from webhook_consumer.rules.findings import find
from webhook_consumer.rules.paths import Path
from webhook_consumer.rules.rule import Listing, Rule
from webhook_consumer.rules.rulebook import Hook, Rulebook
from webhook_consumer.rules.templates import Choice
from webhook_consumer.rules.ties import LinkRule, Mention

# Mentions that any tool's text may hold: addresses of other tools' things.
SHARED_MENTIONS_FILE = "mentions.yaml"

HOOKS: Mapping[str, Hook] = {"find": find}

_CHOICES = ("context", "kind", "title", "url", "context_url", "state", "actor", "action")
_PATHS = ("occurred", "labels", "mentions_in")
_RULE_KEYS = frozenset((*_CHOICES, *_PATHS, "text", "links"))
_BOOK_KEYS = frozenset(
    ("tool", "recognised_by", "type", "defaults", "mentions", "types", "otherwise", "hook")
)
_LINK_KEYS = frozenset(("relation", "to", "tool", "each"))
_MENTION_KEYS = frozenset(("relation", "to", "tool", "near", "pattern"))
_LISTING_KEYS = frozenset(("each", "as", "at_most"))
_AT_MOST_LIMIT = 100

T = TypeVar("T")


class RuleError(Exception):
    """A rule file that can't be used; the message names the file and the key."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"{', '.join(sorted(twice))} is there twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


def load(folder: Traversable) -> dict[str, Rulebook]:
    """All rulebooks of a folder, by tool; raises RuleError."""
    shared: tuple[Mention, ...] = ()
    files = {entry.name: entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    if SHARED_MENTIONS_FILE in files:
        reader = _Reader(SHARED_MENTIONS_FILE)
        content = reader.mapping(_yaml(files.pop(SHARED_MENTIONS_FILE)), "", {"mentions"})
        shared = reader.mentions(content.get("mentions", []))
    books = (_Reader(name, shared).book(_yaml(entry)) for name, entry in sorted(files.items()))
    return {book.tool: book for book in books}


def _yaml(entry: Traversable) -> object:
    try:
        return yaml.load(entry.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        raise RuleError(f"{entry.name}: not YAML: {error}") from error


class _Reader:
    """Compiles one file; knows its name for the errors."""

    def __init__(self, file: str, shared: tuple[Mention, ...] = ()) -> None:
        self._file = file
        self._shared = shared
        self._mentions: tuple[Mention, ...] = ()

    def book(self, content: object) -> Rulebook:
        """A tool's rulebook."""
        keys = self.mapping(content, "", _BOOK_KEYS)
        for required in ("tool", "otherwise"):
            if required not in keys:
                raise self._error(required, "is missing")
        tool = self._word(keys["tool"], "tool")
        if f"{tool}.yaml" != self._file:
            raise self._error("tool", f"{tool!r} is not the file's name")
        hook = self._word(keys.get("hook", ""), "hook")
        if hook and hook not in HOOKS:
            raise self._error("hook", f"there is no {hook!r}; there are {', '.join(sorted(HOOKS))}")
        self._mentions = self.mentions(keys.get("mentions", [])) + self._shared
        defaults = self.mapping(keys.get("defaults", {}), "defaults", _RULE_KEYS)
        return Rulebook(
            tool=tool,
            recognised_by=self._word(keys.get("recognised_by", ""), "recognised_by"),
            type=self._compiled(keys.get("type", "{@type}"), "type", Choice.parse),
            rules=self._rules(keys.get("types", {}), defaults),
            otherwise=self._rule(keys["otherwise"], "otherwise", defaults),
            hook=HOOKS.get(hook),
        )

    def mentions(self, content: object) -> tuple[Mention, ...]:
        """The mentions that people write."""
        items = self._list(content, "mentions")
        return tuple(self._mention(item, f"mentions[{index}]") for index, item in enumerate(items))

    def mapping(self, content: object, key: str, allowed: Iterable[str]) -> dict[str, object]:
        """The content as a mapping with no other than the allowed keys."""
        if not isinstance(content, dict):
            raise self._error(key, "is not a mapping")
        for name in content:
            if name not in allowed:
                known = ", ".join(sorted(allowed))
                raise self._error(f"{key}.{name}".lstrip("."), f"unknown; known are {known}")
        return content

    def _rules(self, content: object, defaults: dict[str, object]) -> dict[str, tuple[Rule, ...]]:
        if not isinstance(content, dict):
            raise self._error("types", "is not a mapping")
        rules: dict[str, tuple[Rule, ...]] = {}
        for names, body in content.items():
            key = f"types.{names}"
            several = body if isinstance(body, list) else [body]
            compiled = tuple(self._rule(each, key, defaults) for each in several)
            for name in str(names).split(","):
                if name.strip() in rules:
                    raise self._error(key, f"{name.strip()!r} has a rule already")
                rules[name.strip()] = compiled
        return rules

    def _rule(self, content: object, key: str, defaults: dict[str, object]) -> Rule:
        fields = {**defaults, **self.mapping(content, key, _RULE_KEYS)}
        for required in ("context", "kind", "text"):
            if required not in fields:
                raise self._error(f"{key}.{required}", "is missing")
        compiled: dict[str, Any] = {
            name: self._compiled(fields[name], f"{key}.{name}", Choice.parse) if name in fields else Choice()
            for name in _CHOICES
        }
        compiled |= {name: self._paths(fields.get(name, []), f"{key}.{name}") for name in _PATHS}
        text = tuple(
            self._listing(item, f"{key}.text[{index}]")
            for index, item in enumerate(self._list(fields["text"], f"{key}.text"))
        )
        links = tuple(
            self._link(self.mapping(item, f"{key}.links[{index}]", _LINK_KEYS), f"{key}.links[{index}]")
            for index, item in enumerate(self._list(fields.get("links", []), f"{key}.links"))
        )
        return Rule(**compiled, text=text, links=links, mentions=self._mentions)

    def _listing(self, content: object, key: str) -> Listing:
        if not isinstance(content, dict):
            return Listing(self._compiled(content, key, Choice.parse))
        fields = self.mapping(content, key, _LISTING_KEYS)
        for required in ("each", "as"):
            if required not in fields:
                raise self._error(f"{key}.{required}", "is missing")
        at_most = fields.get("at_most", 20)
        if not isinstance(at_most, int) or not 0 < at_most <= _AT_MOST_LIMIT:
            raise self._error(f"{key}.at_most", f"is not a number from 1 to {_AT_MOST_LIMIT}")
        each = self._compiled(fields["each"], f"{key}.each", _path)
        return Listing(self._compiled(fields["as"], f"{key}.as", Choice.parse), each, at_most)

    def _link(self, fields: dict[str, object], key: str) -> LinkRule:
        for required in ("relation", "to"):
            if required not in fields:
                raise self._error(f"{key}.{required}", "is missing")
        return LinkRule(
            relation=self._compiled(fields["relation"], f"{key}.relation", Choice.parse),
            to=self._compiled(fields["to"], f"{key}.to", Choice.parse),
            tool=self._word(fields["tool"], f"{key}.tool") if "tool" in fields else None,
            each=self._compiled(fields["each"], f"{key}.each", _path) if "each" in fields else None,
        )

    def _mention(self, content: object, key: str) -> Mention:
        fields = self.mapping(content, key, _MENTION_KEYS)
        for required in ("near", "pattern"):
            if required not in fields:
                raise self._error(f"{key}.{required}", "is missing")
        link = self._link({name: fields[name] for name in fields if name in _LINK_KEYS}, key)
        pattern = self._compiled(fields["pattern"], f"{key}.pattern", _pattern)
        return Mention(self._word(fields["near"], f"{key}.near"), pattern, link)

    def _paths(self, content: object, key: str) -> tuple[Path, ...]:
        return tuple(self._compiled(each, key, _path) for each in self._list(content, key))

    def _compiled(self, content: object, key: str, compile_: Callable[[object], T]) -> T:
        try:
            return compile_(content)
        except ValueError as error:
            raise self._error(key, str(error)) from error

    def _list(self, content: object, key: str) -> list[object]:
        if not isinstance(content, list):
            raise self._error(key, "is not a list")
        return content

    def _word(self, content: object, key: str) -> str:
        if not isinstance(content, str):
            raise self._error(key, f"{content!r} is not text")
        return content

    def _error(self, key: str, problem: str) -> RuleError:
        return RuleError(f"{self._file}: {key or 'the file'}: {problem}")


def _path(content: object) -> Path:
    if not isinstance(content, str):
        raise ValueError(f"{content!r} is not a path")
    return Path.parse(content)


def _pattern(content: object) -> re.Pattern[str]:
    if not isinstance(content, str):
        raise ValueError(f"{content!r} is not a pattern")
    try:
        return re.compile(content)
    except re.error as error:
        raise ValueError(f"{content!r} is not a pattern: {error}") from error
