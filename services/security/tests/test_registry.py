"""Sources out of settings: which there are, their windows, and secrets that change while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from webhook_security import catalogue
from webhook_security.registry.definitions import Definition, Registered
from webhook_security.registry.following import Following
from webhook_security.registry.sources import Registry, unusable
from webhook_security.secrets.secret import Secret
from webhook_security.settings import DeduplicationSection, SecuritySection

CATALOGUE = catalogue.load("X-Webhook-Signature")
ADDRESSABLE = {"github", "gitlab", "jira", "slack", "standard-webhooks"}
VARIABLES = {f"{tool.upper().replace('-', '_')}_WEBHOOK_SECRET": "x" for tool in ADDRESSABLE}


def registry_of(
    security: dict[str, Any] | None = None,
    deduplication: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
) -> Registry:
    return Registry(
        CATALOGUE,
        SecuritySection.model_validate(security or {}),
        DeduplicationSection.model_validate(deduplication or {}),
        environ or {},
    )


def tools_of(registry: Registry, tenant: str = "default") -> set[str]:
    return {source.tool for source in registry.sources() if source.tenant == tenant}


def test_a_variable_makes_a_route_of_the_catalogue() -> None:
    registry = registry_of(environ=VARIABLES)
    assert tools_of(registry) == ADDRESSABLE
    github = registry.find("", "github")
    assert github is registry.find("default", "github")
    assert github
    assert [secret.reference for secret in github.secrets] == ["env:GITHUB_WEBHOOK_SECRET"]
    assert registry.find("", "generic") is None
    assert registry.find("", "pagerduty") is None


def test_where_nothing_is_verified_every_sender_of_the_catalogue_has_a_route() -> None:
    registry = registry_of({"enable_signature_verification": False})
    assert tools_of(registry) == set(CATALOGUE) - {"generic"}


def test_a_variable_makes_a_source() -> None:
    registry = registry_of(environ={"ACME_CI_WEBHOOK_SECRET": "x", "WEBHOOK_SECRET": "x", "HOME": "/"})
    assert tools_of(registry) == {"acme-ci"}
    acme = registry.find("", "acme-ci")
    assert acme
    assert acme.kind == "generic"
    assert [secret.reference for secret in acme.secrets] == ["env:ACME_CI_WEBHOOK_SECRET"]


def test_tenants_have_only_what_is_configured_for_them() -> None:
    registry = registry_of({"tenants": {"beta": {"signature_secrets": {"github": "env:BETA"}}}})
    assert tools_of(registry, "beta") == {"github"}
    assert registry.find("beta", "jira") is None
    assert registry.find("gamma", "github") is None
    assert registry.tenants() == {"default", "beta"}


def test_a_tool_may_follow_another_entry() -> None:
    registry = registry_of({"source_kinds": {"ghe": "github"}})
    source = registry.find("", "ghe")
    assert source
    assert (source.kind, source.max_body_bytes) == ("github", 25 * 2**20)
    with pytest.raises(ValueError, match=r"source_kinds\.ghe: no catalogue entry guthib"):
        registry_of({"source_kinds": {"ghe": "guthib"}})


def test_windows_come_from_the_guide_then_the_catalogue_then_the_default() -> None:
    registry = registry_of(
        {"signature_secrets": {"acme": "env:A"}},
        {"window_configs": {"github": {"duration": "5m", "max_size": 2}, "jira": {"max_size": 3}}},
        VARIABLES,
    )
    windows = {source.tool: (source.window_s, source.occurrences) for source in registry.sources()}
    assert windows["github"] == (300, 2)
    assert windows["jira"] == (24 * 3600, 3)
    assert windows["standard-webhooks"] == (3 * 24 * 3600, 1)
    assert windows["acme"] == (24 * 3600, 1)


def test_a_window_outlives_the_timestamps_that_it_guards() -> None:
    registry = registry_of(deduplication={"window_configs": {"slack": {"duration": "1m"}}}, environ=VARIABLES)
    slack = registry.find("", "slack")
    assert slack
    assert slack.window_s == 600


def test_producers_need_no_route_but_a_name() -> None:
    registry = registry_of(environ=VARIABLES)
    source = registry.for_producer("beta", "acme")
    assert source is registry.for_producer("beta", "acme")
    assert source
    assert (source.tenant, source.tool, source.kind) == ("beta", "acme", "generic")
    assert registry.for_producer("", "github") is registry.find("", "github")
    for tenant, tool in (("beta", "../admin"), ("BETA", "acme"), ("beta", ""), ("beta", "x" * 64)):
        assert registry.for_producer(tenant, tool) is None


def test_a_source_without_a_secret_is_there_but_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "x")
    monkeypatch.setenv("JIRA_WEBHOOK_SECRET", " \n")
    monkeypatch.delenv("GITLAB_WEBHOOK_SECRET", raising=False)
    monkeypatch.setenv("STANDARD_WEBHOOKS_WEBHOOK_SECRET", "not a whsec")
    registry = registry_of(environ=VARIABLES)
    lines = unusable(registry.sources())
    assert "default/jira: env:JIRA_WEBHOOK_SECRET" in lines
    assert "default/standard-webhooks: env:STANDARD_WEBHOOKS_WEBHOOK_SECRET" in lines
    assert not any("github" in line for line in lines)
    assert not any("not a whsec" in line for line in lines)


def test_of_two_registries_the_first_is_heard_and_what_did_not_change_stays() -> None:
    registry = registry_of({"signature_secrets": {"acme": "env:A"}})
    revision, acme = registry.revision, registry.find("", "acme")
    octo, shadow = Definition("octo", "github", (Secret("a", "x:a"),)), Definition("default", "acme")
    assert registry.take("database", Registered([octo, shadow], {"x:a": "the secret"})) == [shadow]
    source = registry.find("octo", "github")
    assert source
    assert source.usable == {"x:a"}
    assert registry.find("", "acme") is acme
    assert registry.revision > revision
    assert "octo" in registry.tenants()
    # Other sources come and go; what is known of this one is not lost.
    late = Definition("late", "github", (Secret("b", "x:b"),))
    registry.take("database", Registered([octo, late], {"x:a": "another secret"}))
    assert registry.find("octo", "github") is source
    assert source.values == {"x:a": "another secret"}
    assert "late/github: x:b" in unusable(registry.sources())
    registry.take("database", Registered([], {}))
    assert registry.find("octo", "github") is None


async def test_a_file_is_read_again_while_the_service_runs(
    tmp_path: Path, until: Callable[[Callable[[], bool]], Any]
) -> None:
    file = tmp_path / "secret"
    file.write_text("first\n", encoding="utf-8")
    reference = f"file:{file}"
    registry = registry_of({"signature_secrets": {"acme": reference}})
    source = registry.find("", "acme")
    assert source
    assert source.values == {reference: "first"}
    reading = asyncio.create_task(Following(registry.configured, registry, every_s=0.01).keep())
    try:
        file.write_text("second", encoding="utf-8")
        await until(lambda: source.values == {reference: "second"})
        file.unlink()
        await until(lambda: not source.usable)
        assert source.values == {}
    finally:
        reading.cancel()
