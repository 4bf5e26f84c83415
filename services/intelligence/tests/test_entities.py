"""What a text names."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_intelligence.texts.entities import MOST_ENTITIES, find


def found(text: str) -> set[tuple[str, str]]:
    return {(entity.kind, entity.value) for entity in find([text])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "fixes #17 and octo/hello#18",
            {("issue", "#17"), ("issue", "octo/hello#18"), ("repository", "octo/hello")},
        ),
        ("blocked by OPS-12, see CVE-2024-12345", {("issue", "OPS-12"), ("issue", "CVE-2024-12345")}),
        ("in UTF-8 and SHA-256", set()),
        ("reverts deadbee1 (not 1234567, not feedface-1)", {("commit", "deadbee1")}),
        ("@octocat, ask @alice-b.", {("person", "octocat"), ("person", "alice-b")}),
        ("mail bob@example.com about @copilotkit/aimock", set()),
        ("from v1.2 to 1.2.4-rc.1, not 10.0.0.1", {("version", "v1.2"), ("version", "1.2.4-rc.1")}),
        ("broken in src/app/main.py.", {("path", "src/app/main.py")}),
        (
            "see https://github.com/octo/hello/pull/42.",
            {("url", "https://github.com/octo/hello/pull/42"), ("repository", "octo/hello")},
        ),
    ],
)
def test_texts(text: str, expected: set[tuple[str, str]]) -> None:
    assert found(text) == expected


def test_structure_comes_first() -> None:
    names = find(["by @zoe"], people=["octocat"], context_id="github:octo/hello:pull_request:42")
    assert [(name.kind, name.value) for name in names] == [
        ("repository", "octo/hello"),
        ("person", "octocat"),
        ("person", "zoe"),
    ]


def test_bounded() -> None:
    assert len(find([" ".join(f"#{i}" for i in range(10_000))])) == MOST_ENTITIES


@pytest.mark.parametrize(
    "piece", ["a", "a/", "a.", "@a", "1.", "A1-", "#", "http://", "-a-", "0f", "a/a#", "../"]
)
def test_no_text_makes_it_slow(piece: str) -> None:
    began = time.process_time()
    find([piece * 500_000])
    assert time.process_time() - began < 2


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_text(texts: list[str]) -> None:
    for entity in find(texts):
        assert entity.value
