"""A secret that is there and can't be one stops the start; one that is not there yet does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from webhook_security import catalogue
from webhook_security.registry import secret_check
from webhook_security.registry.secret_check import SecretUnfit
from webhook_security.registry.sources import Registry
from webhook_security.settings import DeduplicationSection, SecuritySection
from webhook_shared.settings import RedisSection

CATALOGUE = catalogue.load("X-Webhook-Signature")


def checked(secrets: dict[str, Any]) -> None:
    security = SecuritySection.model_validate({"signature_secrets": secrets})
    secret_check.check(Registry(CATALOGUE, security, DeduplicationSection(), {}).sources())


@pytest.mark.parametrize("content", ["", " ", "\n", "\t\n"])
def test_an_empty_secret(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SecretUnfit, match=rf"^secrets can't be used: default/github: file:{file} is empty$"):
        checked({"github": f"file:{file}"})
    # The other one being right is no excuse.
    with pytest.raises(SecretUnfit, match="is empty"):
        checked({"github": [f"file:{file}", "env:PATH"]})


@pytest.mark.parametrize(
    ("tool", "form"),
    [("standard-webhooks", "whpk_ and base64 or whsec_ and base64"), ("azure-devops", "user:password")],
)
def test_a_secret_that_is_none(monkeypatch: pytest.MonkeyPatch, tool: str, form: str) -> None:
    monkeypatch.setenv("THE_SECRET", "hunter2")
    with pytest.raises(SecretUnfit, match=f"env:THE_SECRET is none: it must be {form}") as refused:
        checked({tool: "env:THE_SECRET"})
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_secret_that_is_not_there_yet(tmp_path: Path) -> None:
    checked({"github": f"file:{tmp_path}/later", "jira": "env:NO_SUCH_VARIABLE_HERE"})


async def test_the_service_does_not_start(
    service: Any, valkey: RedisSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_CI_WEBHOOK_SECRET", "")
    with pytest.raises(SecretUnfit, match="default/acme-ci: env:ACME_CI_WEBHOOK_SECRET is empty"):
        async with service(valkey):
            pass
