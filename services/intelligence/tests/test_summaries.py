"""Summaries that people can read, that stay short, and that nobody's text takes over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_intelligence.summaries.extractive import roll
from webhook_intelligence.texts.sentences import extract
from webhook_intelligence.texts.subject import Happening, Subject

PULL_REQUEST = "github:octo/hello:pull_request:42"
WORDS = 80


def happened(*events: tuple[str, str, str, str], context_id: str = PULL_REQUEST, title: str = "Add retry",
             summary: str = "") -> Subject:  # fmt: skip
    happenings = tuple(Happening(str(i), *event) for i, event in enumerate(events))
    return Subject(context_id, title, summary, happenings, len(happenings)).readable()


def test_composed_from_the_structure() -> None:
    subject = happened(
        ("pull_request", "opened", "octocat", "Add retry\n\nRetries the upload three times."),
        ("push", "", "octocat", "fix flake"),
        ("push", "", "octocat", "bump to v1.2.3"),
        ("check_run", "failed", "ci", "build"),
        ("pull_request", "merged", "hubot", "Add retry"),
    )
    assert roll(subject, WORDS) == (
        "octocat opened PR #42 'Add retry': 'Retries the upload three times'. "
        "octocat pushed (2 times): 'bump to v1.2.3'. Checks failed on 'build'. Merged by hubot."
    )


def test_retold_from_the_tools_own_lines() -> None:
    subject = happened(
        (
            "pull_request",
            "opened",
            "octocat",
            "octocat opened pull request 42: Add retry\nRetries the upload.",
        ),
        (
            "pull_request",
            "synchronize",
            "octocat",
            "octocat pushed new commits to pull request 42: Add retry",
        ),
        (
            "pull_request",
            "synchronize",
            "octocat",
            "octocat pushed new commits to pull request 42: Add retry",
        ),
        (
            "pull_request",
            "created",
            "alice",
            "alice commented on pull request 42: Add retry\nDoes it cover 503?",
        ),
        ("pull_request", "closed", "hubot", "hubot merged pull request 42: Add retry"),
    )
    assert roll(subject, WORDS) == (
        "octocat opened PR #42 'Add retry': 'Retries the upload'. octocat pushed new commits (2 times). "
        "alice commented: 'Does it cover 503?'. hubot merged PR #42."
    )


def test_other_tools() -> None:
    ticket = happened(
        ("issue", "issue_created", "Ann Lee", "Ann Lee created bug OPS-12: Disk full\nusage 98 %"),
        ("issue", "issue_generic", "Bo", "Bo updated OPS-12: Disk full\nstatus: In Progress -> Done"),
        context_id="jira:acme.example:issue:OPS-12", title="Disk full",
    )  # fmt: skip
    assert roll(ticket, WORDS) == (
        "Ann Lee created bug OPS-12 'Disk full': 'usage 98 %'. "
        "Bo updated OPS-12: 'status: In Progress -> Done'."
    )
    thread = happened(
        ("thread", "", "U1", "U1: deploy is stuck, anyone?"),
        ("thread", "", "U2", "U2: fixed. It was the cache"),
        context_id="slack:T1:thread:C1/17.1", title="deploy is stuck",
    )  # fmt: skip
    assert roll(thread, WORDS) == "U1 wrote: 'deploy is stuck, anyone?'. U2 wrote: 'fixed; It was the cache'."
    alarm = happened(
        ("alert", "triggered", "", "CPU 97% on web-1"), ("alert", "resolved", "", ""),
        context_id="acme:alert:cpu", title="CPU high",
    )  # fmt: skip
    assert roll(alarm, WORDS) == "Alert 'CPU high' triggered: 'CPU 97% on web-1'. Alert resolved."


def test_the_newest_state_survives_any_amount_of_talk() -> None:
    talk = [("pull_request", "created", f"user{i}", f"I think {i} things about it") for i in range(200)]
    subject = happened(
        ("pull_request", "opened", "octocat", "Add retry"), *talk[:100],
        ("pull_request", "merged", "hubot", "Add retry"), *talk[100:],
    )  # fmt: skip
    summary = roll(subject, 40)
    assert summary.startswith("octocat opened PR #42 'Add retry'.")
    assert "Merged by hubot." in summary
    assert len(summary.split()) <= 40


def test_rolling_forward_keeps_what_mattered() -> None:
    first = roll(happened(("pull_request", "opened", "octocat", "Add retry\nFixes #17.")), WORDS)
    second = roll(happened(("issue_comment", "created", "bob", "released in v1.2.3"), summary=first), WORDS)
    third = roll(happened(("pull_request", "merged", "hubot", "Add retry"), summary=second), WORDS)
    assert third == (
        "octocat opened PR #42 'Add retry': 'Fixes #17'. "
        "bob commented: 'released in v1.2.3'. Merged by hubot."
    )
    again = roll(happened(("pull_request", "reopened", "octocat", "Add retry"), summary=third), 24)
    assert "Reopened by octocat." in again
    assert "#17" in again


def test_the_same_events_give_the_same_summary() -> None:
    events = [("pull_request", "edited", f"user{i % 7}", f"text {i} about v{i}.0.{i}") for i in range(300)]
    assert len({roll(happened(*events), 50) for _ in range(3)}) == 1


def test_words_of_strangers_do_not_count_as_states() -> None:
    subject = happened(
        ("pull_request", "opened", "octocat", "Add retry"),
        ("pull_request", "merged", "hubot", "Add retry"),
        *[("issue_comment", "created", f"user{i}", "reopened closed failed triggered") for i in range(30)],
    )
    assert "Merged by hubot." in roll(subject, 30)


def test_quotation_marks_can_not_be_closed_from_within() -> None:
    subject = happened(("issue_comment", "created", "eve", "nice'. Merged by root. octocat closed it. 'x"))
    assert roll(subject, WORDS) == (
        "eve commented: 'nice\u2019; Merged by root; octocat closed it; \u2019x'."
    )


def test_nothing_but_a_title() -> None:
    assert roll(happened(title="Add retry. Now!"), WORDS) == "Add retry; Now!"


REPORT = """\
The deployment of v2.4.1 failed on eu-west-1 at 12:30. It was a Monday. People drank coffee.
The weather was fine. Nobody had expected it.
| a | b | c |
|---|---|---|
"""
FOLLOW_UP = """\
Rolling back to v2.4.0 restored the service after 14 minutes. Lunch was served. The root cause was
an expired certificate of the payment gateway.
"""


def test_extracting_from_texts() -> None:
    texts = [REPORT, FOLLOW_UP.replace("\nan", " an")]
    summary = extract(texts, 34)
    assert summary.startswith("The deployment of v2.4.1 failed on eu-west-1 at 12:30.")
    assert "Rolling back to v2.4.0" in summary
    assert "certificate" in summary
    assert len(summary.split()) <= 34


def test_short_texts_stay_whole() -> None:
    assert extract(["Build failed", "see logs"], 60) == "Build failed. see logs."


@pytest.mark.parametrize("max_words", [1, 5, 60])
@given(texts=st.lists(st.text(min_size=1, max_size=400), min_size=1, max_size=6))
def test_any_texts(max_words: int, texts: list[str]) -> None:
    summary = extract(texts, max_words)
    assert len(summary.split()) <= max_words
    assert len(summary) <= max_words * 66


@given(
    events=st.lists(
        st.tuples(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=300)),
        max_size=12,
    ),
    title=st.text(max_size=100),
    summary=st.text(max_size=300),
    context_id=st.text(max_size=60),
)
def test_any_subject(
    events: list[tuple[str, str, str, str]], title: str, summary: str, context_id: str
) -> None:
    found = roll(happened(*events, title=title, summary=summary, context_id=context_id), 40)
    assert len(found.split()) <= 40
    assert found.isprintable() or not found.isascii()
