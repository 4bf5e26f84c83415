"""The keys and variables of the guide."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from webhook_context.settings import ContextSettings
from webhook_shared.settings import SettingsError, unfinished

GUIDE = """
webhook:
  context_lifecycle:
    hot_duration: 30m
    warm_duration: 24h
    hot_importance_threshold: 0.8
    warm_importance_threshold: 0.5
    compression_type: zstd
    compression_level: 6
"""


def _load(tmp_path: Path, text: str, **environ: str) -> ContextSettings:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return ContextSettings.load(file=file, environ=environ)


def test_the_guides_section(tmp_path: Path) -> None:
    settings = _load(tmp_path, GUIDE)
    lifecycle = settings.webhook.context_lifecycle
    assert (lifecycle.hot_duration, lifecycle.warm_duration) == (timedelta(minutes=30), timedelta(hours=24))
    assert (lifecycle.compression_type, lifecycle.compression_level) == ("zstd", 6)
    assert unfinished(settings) == []
    assert unfinished(_load(tmp_path, "")) == []


def test_the_guides_variables(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        "",
        S3_ENDPOINT="https://s3.amazonaws.com",
        S3_BUCKET="devops-mcp-webhook-contexts",
        S3_REGION="eu-west-1",
        AWS_ACCESS_KEY_ID="AKIA",
        AWS_SECRET_ACCESS_KEY="hidden",
    )
    cold = settings.webhook.cold_storage
    assert (cold.endpoint, cold.bucket) == ("https://s3.amazonaws.com", "devops-mcp-webhook-contexts")
    assert (cold.region, cold.access_key_id) == ("eu-west-1", "AKIA")
    assert cold.secret_access_key.get_secret_value() == "hidden"
    assert "hidden" not in repr(settings)
    assert unfinished(settings) == []


@pytest.mark.parametrize(
    ("text", "environ", "problem"),
    [
        ("webhook: {context_lifecycle: {hot_duration: 2}}", {}, "hot_duration"),
        ("webhook: {context_lifecycle: {hot_duration: 48h}}", {}, "hot_duration must be above 0s"),
        ("webhook: {context_lifecycle: {hot_importance_threshold: 0.1}}", {}, "warm_importance_threshold"),
        ("webhook: {context_lifecycle: {compression_type: lzma}}", {}, "compression_type"),
        (
            "webhook: {context_lifecycle: {compression_type: gzip, compression_level: 12}}",
            {},
            "compression_level of gzip",
        ),
        ("webhook: {context_lifecycle: {hot_durations: 1h}}", {}, "did you mean hot_duration?"),
        ("webhook: {context_lifecycle: {pressure_high_ratio: 0.5}}", {}, "pressure_low_ratio must be below"),
        ("webhook: {context_lifecycle: {check_interval: 0s}}", {}, "check_interval must be above 0s"),
        ("webhook: {cold_storage: {checksum_mode: never}}", {}, "checksum_mode"),
        ("", {"S3_ENDPOINT": "s3.amazonaws.com"}, "S3_ENDPOINT"),
        ("", {"S3_BUCKET": "Not_A_Bucket"}, "S3_BUCKET"),
        ("", {"AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY"),
        ("webhook: {cold_storage: {secret_access_key: plain}}", {}, "secret_access_key"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, environ: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem.replace("?", r"\?")):
        _load(tmp_path, text, **environ)
