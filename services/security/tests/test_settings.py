"""Every key and variable that the guide promises, and what is said about mistakes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from webhook_security.settings import SecuritySettings
from webhook_shared.settings import SettingsError, unfinished

GUIDE = """
webhook:
  deduplication:
    window_configs:
      github: {duration: 5m, max_size: 1}
      jira: {duration: 10m, max_size: 3}
    bloom_filter_size: 10000000
    bloom_filter_hash_funcs: 4
  security:
    enable_signature_verification: true
    signature_header: X-Webhook-Signature
    timestamp_tolerance: 5m
    enable_rate_limiting: true
    global_rate_limit: 10000
    per_tool_rate_limits: {github: 5000, jira: 2000}
    max_payload_size: 10485760
    enable_audit_logging: true
"""


def loaded(tmp_path: Path, text: str, **environ: str) -> SecuritySettings:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return SecuritySettings.load(file=file, environ=environ)


def problems(tmp_path: Path, security: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, f"webhook: {{security: {security}}}")
    return refused.value.problems


def test_the_guide_parses(tmp_path: Path) -> None:
    settings = loaded(tmp_path, GUIDE)
    security, deduplication = settings.webhook.security, settings.webhook.deduplication
    assert security.timestamp_tolerance == timedelta(minutes=5)
    assert security.per_tool_rate_limits == {"github": 5000, "jira": 2000}
    assert security.max_payload_size == 10 * 2**20
    assert deduplication.window_configs["jira"].duration == timedelta(minutes=10)
    assert deduplication.window_configs["jira"].max_size == 3


def test_every_key_of_the_guide_does_something(tmp_path: Path) -> None:
    assert unfinished(loaded(tmp_path, GUIDE)) == []
    assert unfinished(SecuritySettings.load(environ={})) == []


def test_variables_override_the_file(tmp_path: Path) -> None:
    settings = loaded(tmp_path, GUIDE, WEBHOOK_SIGNATURE_VERIFICATION="false", WEBHOOK_RATE_LIMITING="false")
    assert settings.webhook.security.enable_signature_verification is False
    assert settings.webhook.security.enable_rate_limiting is False


def test_secrets_are_written_in_three_ways(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        """
        webhook:
          security:
            signature_secrets:
              github: env:GITHUB_WEBHOOK_SECRET
              acme: {ref: file:/run/secrets/acme, key_id: acme-1}
              jira:
                - {ref: env:JIRA_NEW, not_before: 2026-09-01}
                - {ref: env:JIRA_OLD, not_after: "2026-10-01T12:00:00Z", key_id: old}
            tenants:
              beta: {signature_secrets: {github: env:BETA_GITHUB}}
        """,
    )
    secrets = settings.webhook.security.signature_secrets
    assert [entry.name for entry in secrets["github"]] == ["env:GITHUB_WEBHOOK_SECRET"]
    assert [entry.name for entry in secrets["acme"]] == ["acme-1"]
    assert secrets["jira"][0].not_before == datetime(2026, 9, 1, tzinfo=UTC)
    assert secrets["jira"][1].not_after == datetime(2026, 10, 1, 12, tzinfo=UTC)
    assert settings.webhook.security.tenants["beta"].signature_secrets["github"][0].ref == "env:BETA_GITHUB"


@pytest.mark.parametrize("written", ["hunter2-hunter2", "'env:'", "'env:A B'", "'file:'", "12345"])
def test_a_secret_itself_is_refused_and_not_repeated(tmp_path: Path, written: str) -> None:
    [line] = problems(tmp_path, f"{{signature_secrets: {{github: {written}}}}}")
    assert "webhook.security.signature_secrets.github" in line
    assert "hunter2" not in line


def test_a_substituted_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(
            tmp_path,
            "webhook: {security: {signature_secrets: {github: '${GITHUB_SECRET}'}}}",
            GITHUB_SECRET="hunter2",
        )
    [line] = refused.value.problems
    assert "env:NAME" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("security", "told"),
    [
        ("{signature_secrets: {GitHub: env:A}}", "GitHub"),
        ("{signature_secrets: {github: []}}", "names no secret"),
        ("{signature_secrets: {github: [env:A, env:A]}}", "same key_id"),
        ("{signature_secrets: {github: {ref: env:A, not_before: soon}}}", "2026-09-01"),
        (
            "{signature_secrets: {github: {ref: env:A, not_before: 2026-02-01, not_after: 2026-01-01}}}",
            "earlier",
        ),
        ("{signature_secrets: {github: {ref: env:A, key_id: 'a b'}}}", "key_id"),
        ("{signature_headers: X-Sig}", "did you mean signature_header?"),
        ("{signature_header: 'X Sig'}", "signature_header"),
        ("{timestamp_tolerance: 300}", "with its unit"),
        ("{timestamp_tolerance: 0s}", "timestamp_tolerance"),
        ("{tenants: {'a/b': {}}}", "tenants"),
    ],
)
def test_mistakes_are_told_where_they_are(tmp_path: Path, security: str, told: str) -> None:
    assert any(told in line for line in problems(tmp_path, security))


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "{signature_headers: a, global_rate_limit: 0, max_payload_size: big}")
    assert len(found) == 3


def test_a_source_that_a_user_described_wrongly(tmp_path: Path) -> None:
    for scheme, told in (
        ("{kind: noop, header: X-A}", "kind"),
        ("{kind: hmac, header: X-A, algorithm: md5}", "algorithm"),
        ("{kind: hmac, header: X-A, colour: red}", "colour"),
        ("{kind: hmac}", "stands in a header"),
        ("{kind: ed25519, header: X-A}", "is public"),
        ("{kind: token, header: X-A, field: b}", "name one of the two"),
    ):
        found = problems(tmp_path, f"{{sources: {{acme: {{schemes: [{scheme}]}}}}}}")
        assert len(found) == 1
        assert found[0].startswith("webhook.security.sources.acme.schemes")
        assert told in found[0]
        assert "\n" not in found[0]
    assert "names none" in problems(tmp_path, "{sources: {acme: {schemes: []}}}")[0]
    assert "webhook.security.sources.Acme" in problems(tmp_path, "{sources: {Acme: {}}}")[0]
