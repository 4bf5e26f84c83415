"""Secrets go, ordinary text stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_intelligence.texts.redaction import redact, redacted_head

A = "A1b2C3d4E5f6G7h8I9j0"


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("ghp_" + A * 2, "github-token"),
        ("github_pat_" + A, "github-token"),
        ("glpat-" + A, "gitlab-token"),
        ("AKIA" + "ABCDEFGH12345678", "aws-key"),
        ("xoxb-" + "123456789012-" + A, "slack-token"),
        ("https://hooks.slack.com/services/T00000000/B00000000/" + A, "slack-webhook"),
        ("sk-proj-" + A, "api-key"),
        ("sk_live_" + A, "api-key"),
        ("whsec_" + A, "api-key"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0." + A, "jwt"),
        ("Bearer " + A, "bearer"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE" + A + "\n" + A + "==\n-----END RSA PRIVATE KEY-----",
            "private-key",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE" + A, "private-key"),
    ],
)
def test_secrets(secret: str, kind: str) -> None:
    assert redact(f"look: {secret}, please rotate.") == f"look: [redacted:{kind}], please rotate."


def test_passwords() -> None:
    assert "hunter2hunter2" not in redact("password: hunter2hunter2")
    assert "s3cretvalue" not in redact("DB_URL=postgres://admin:s3cretvalue@db.example.com/x")
    assert "@db.example.com" in redact("postgres://admin:s3cretvalue@db.example.com/x")


@pytest.mark.parametrize(
    "text",
    [
        "octocat opened PR #42 'Add retry'",
        "the password is wrong since v1.2.3",
        "the bearer of bad news arrives at 12:30",
        "see https://github.com/octo/hello/pull/42#issuecomment-1",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "skip-this-test-and-that-one sk-learn",
    ],
)
def test_ordinary_text(text: str) -> None:
    assert redact(text) == text


def test_a_secret_across_the_cut_is_not_left_in_halves() -> None:
    text = "x" * 90 + " ghp_" + A * 2
    assert "ghp_" not in redacted_head(text, 120)


@pytest.mark.parametrize(
    "piece",
    ["-----BEGIN PRIVATE KEY-----", "eyJ-", "eyJaaaaaaaa.", "://a:", "password=", "xoxb-", "a" * 50 + "/"],
)
def test_no_text_makes_it_slow(piece: str) -> None:
    hostile = piece * (200_000 // len(piece))
    began = time.process_time()
    redact(hostile)
    assert time.process_time() - began < 2


@given(st.text(max_size=500))
def test_any_text(text: str) -> None:
    assert isinstance(redact(text), str)
