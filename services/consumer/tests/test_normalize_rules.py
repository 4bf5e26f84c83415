"""The rule language, and what is refused when rules are loaded."""

from datetime import UTC, datetime
from pathlib import Path as File
from typing import Any

import pytest
from webhook_consumer.normalize import Normalizer
from webhook_consumer.rules.loading import RuleError, load
from webhook_consumer.rules.moments import moment
from webhook_consumer.rules.paths import Path, Scope
from webhook_consumer.rules.templates import Choice, Template

PAYLOAD: dict[str, Any] = {
    "action": "opened",
    "count": 0,
    "draft": False,
    "empty": "",
    "ref": "refs/heads/feature/x",
    "sha": "1a954628a960aaef81d7b2d4521929579f3541e6",
    "user": {"name": "Ada", "mail": None},
    "labels": [{"name": "bug"}, {"other": 1}, {"name": "web"}],
    "matrix": [{"rows": ["a", "b"]}, {"rows": ["c"]}],
    "url": "https://user:pass@Acme.example:8443/x",
}


def filled(template: str, **envelope: object) -> str | None:
    return Template.parse(template).fill(Scope(PAYLOAD, envelope, {"id": 7}))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{user.name} {action}", "Ada opened"),
        ("{user.mail|user.name}", "Ada"),
        ("{user.mail}", None),
        ("{empty}", None),
        ("{user}", None),
        ("{count} {draft}", "0 false"),
        ("{labels[].name}", "bug, web"),
        ("{labels.0.name} {labels.-1.name}", "bug web"),
        ("{labels.9.name}", None),
        ("{matrix[].rows[]}", "a, b, c"),
        ("{.id}", "7"),
        ("{@type}", "push"),
        ("{ref:branch}", "feature/x"),
        ("{ref:tag}", None),
        ("{sha:short}", "1a95462"),
        ("{labels:count}", "3"),
        ("{url:host}", "acme.example:8443"),
        ("{@type:past}", "pushed"),
        ("{user?}there", "there"),
        ("{!user?}there", None),
        ("{!user.mail?}none", "none"),
        ("{draft=false?}ready", "ready"),
        ("{action=closed,opened?}yes", "yes"),
        ("{action!=closed,opened?}yes", None),
        ("{action!=closed?}yes", "yes"),
        ("{labels:count=3?}three", "three"),
        ("{action=opened?}", ""),
    ],
)
def test_templates(template: str, text: str | None) -> None:
    assert filled(template, type="push") == text


def test_the_first_complete_alternative_is_used() -> None:
    scope = Scope(PAYLOAD, {})
    assert Choice.parse(["{nothing}", "{user.name}", "{action}"]).fill(scope) == "Ada"
    assert Choice.parse(["{nothing}"]).fill(scope) == ""


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{a",
        "a}",
        "{}",
        "{a b}",
        "{a:nofilter}",
        "{a=b}",
        "{!a}",
        "{a..b}",
        "{a[0]}",
        "{a?b}",
        "{a|}",
    ],
)
def test_bad_templates_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"no |is not|without|compares"):
        Template.parse(template)


@pytest.mark.parametrize(("path", "count"), [("labels", 3), ("user", 2), ("action", 1), ("nothing", 0)])
def test_items(path: str, count: int) -> None:
    assert len(Path.parse(path).items(Scope(PAYLOAD, {}))) == count


@pytest.mark.parametrize(
    "said",
    [
        "2026-11-20T09:02:11Z",
        "2026-11-20T10:02:11+01:00",
        "2026-11-20T10:02:11.000+0100",
        "2026-11-20 09:02:11 UTC",
        "2026-11-20 10:02:11 +0100",
        "2026-11-20 09:02:11",
        1795165331,
        1795165331000,
        1795165331000000,
        1795165331.0,
        "1795165331",
        "1795165331.000000",
    ],
)
def test_moments(said: object) -> None:
    assert moment(said) == datetime(2026, 11, 20, 9, 2, 11, tzinfo=UTC)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "soon",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:00",
        "9999-12-31T23:59:59-23:00",
        0,
        -5,
        1e308,
        True,
        None,
        [],
        {},
        "9" * 5000,
    ],
)
def test_no_moments(said: object) -> None:
    assert moment(said) is None


BOOK = """
tool: acme
types:
  opened:
    context: "{id}"
    kind: ticket
    text: ["{title}"]
otherwise: {context: "all", kind: all, text: ["{@type}"]}
"""


def loaded(folder: File, text: str, name: str = "acme.yaml") -> None:
    (folder / name).write_text(text, encoding="utf-8")
    load(folder)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"{id}"', '"{id"', r"acme\.yaml: types\.opened\.context: .*brace"),
        ('"{id}"', '"{id:nope}"', r"acme\.yaml: types\.opened\.context: .*no filter: 'nope'"),
        ('"{id}"', "7", r"acme\.yaml: types\.opened\.context: 7 is not text"),
        ("kind: ticket", "kidn: ticket", r"acme\.yaml: types\.opened\.kidn: unknown; known are"),
        ("kind: ticket", "", r"acme\.yaml: types\.opened\.kind: is missing"),
        ('["{title}"]', '"{title}"', r"acme\.yaml: types\.opened\.text: is not a list"),
        ('["{title}"]', "[{each: a}]", r"acme\.yaml: types\.opened\.text\[0\]\.as: is missing"),
        ('["{title}"]', "[{each: a, as: b, at_most: 0}]", r"acme\.yaml: types\.opened\.text\[0\]\.at_most: "),
        ('["{title}"]', '["x"]\n    labels: ["a b"]', r"acme\.yaml: types\.opened\.labels: .*not a path"),
        (
            '["{title}"]',
            '["x"]\n    links: [{to: a}]',
            r"acme\.yaml: types\.opened\.links\[0\]\.relation: is missing",
        ),
        ("tool: acme", "tool: other", r"acme\.yaml: tool: 'other' is not the file's name"),
        ("tool: acme", "tool: acme\nhook: nope", r"acme\.yaml: hook: there is no 'nope'"),
        ("tool: acme", "tool: acme\nmore: 1", r"acme\.yaml: more: unknown"),
        (
            "tool: acme",
            "tool: acme\nmentions: [{near: x, relation: a, to: b, pattern: '('}]",
            r"acme\.yaml: mentions\[0\]\.pattern: ",
        ),
        ("opened:", "opened, opened:", r"acme\.yaml: types\..*'opened' has a rule already"),
        ("kind: ticket", "kind: ticket\n    kind: other", r"acme\.yaml: not YAML: .*kind is there twice"),
        ("otherwise:", "otherwis:", r"acme\.yaml: otherwis: unknown"),
        (BOOK, "[]", r"acme\.yaml: the file: is not a mapping"),
        (BOOK, "{", r"acme\.yaml: not YAML"),
        (BOOK, "tool: acme", r"acme\.yaml: otherwise: is missing"),
    ],
)
def test_bad_rules_are_refused_by_file_and_key(tmp_path: File, old: str, new: str, problem: str) -> None:
    loaded(tmp_path, BOOK)
    assert old in BOOK
    with pytest.raises(RuleError, match=problem):
        loaded(tmp_path, BOOK.replace(old, new))


def test_our_own_rules_load() -> None:
    Normalizer.load()
