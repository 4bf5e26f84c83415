"""What an operator can set for the context store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from webhook_shared.settings import (
    ByteCount,
    Duration,
    EncryptionSection,
    Secret,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)


class ContextLifecycleSection(Section):
    """`webhook.context_lifecycle`: when a context moves to a cheaper place, and in what form."""

    hot_duration: Duration = setting(
        timedelta(minutes=30), description="How long an untouched context stays hot."
    )
    warm_duration: Duration = setting(
        timedelta(hours=24), description="How long an untouched context stays warm."
    )
    hot_importance_threshold: float = setting(
        0.8, ge=0, le=1, description="From this importance on a context stays hot."
    )
    warm_importance_threshold: float = setting(
        0.5, ge=0, le=1, description="From this importance on a context stays warm."
    )
    compression_type: Literal["zstd", "gzip", "none"] = setting(
        "zstd", description="How warm and cold contexts are compressed."
    )
    compression_level: int = setting(6, ge=1, le=22, description="Level of the compression; gzip ends at 9.")
    grace_duration: Duration = setting(
        timedelta(minutes=1),
        description="How long what a transition replaced stays, so that nothing is dropped while it is read.",
    )
    warm_from_size: ByteCount = setting(
        4 * 1024,
        description="Contexts with fewer bytes of events gain nothing by being warm; they skip it.",
    )
    promote_after_reads: int = setting(
        2, ge=1, description="So many reads since it came to its tier bring a context one tier up."
    )
    check_interval: Duration = setting(
        timedelta(seconds=5), description="How often to look for contexts whose time has come."
    )
    sweep_interval: Duration = setting(
        timedelta(hours=1), description="How often to look for contexts of whom no time is known."
    )
    memory_limit: ByteCount = setting(
        0, ge=0, description="Memory that Redis may use, bytes; 0 takes Redis' own maxmemory."
    )
    pressure_high_ratio: float = setting(
        0.85, gt=0, le=1, description="From this share of the memory on contexts go down before their time."
    )
    pressure_low_ratio: float = setting(
        0.75, gt=0, le=1, description="Down to this share of the memory they do."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not timedelta() < self.hot_duration <= self.warm_duration:
            raise ValueError("hot_duration must be above 0s and not above warm_duration")
        if self.warm_importance_threshold > self.hot_importance_threshold:
            raise ValueError("warm_importance_threshold must not be above hot_importance_threshold")
        if self.pressure_low_ratio >= self.pressure_high_ratio:
            raise ValueError("pressure_low_ratio must be below pressure_high_ratio")
        if self.check_interval <= timedelta():
            raise ValueError("check_interval must be above 0s")
        if self.compression_type == "gzip" and self.compression_level > 9:
            raise ValueError("compression_level of gzip is 1 to 9")
        return self


class ColdStorageSection(Section):
    """`webhook.cold_storage`: the bucket of the cold tier, or its directory."""

    endpoint: str = setting(
        "",
        env="S3_ENDPOINT",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="URL of the S3-compatible store; empty means AWS.",
    )
    bucket: str = setting(
        "",
        env="S3_BUCKET",
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$",
        description="Name of the bucket; empty means a local directory.",
    )
    region: str = setting(
        "us-east-1",
        env="S3_REGION",
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Region of the bucket.",
    )
    access_key_id: str = setting("", env="AWS_ACCESS_KEY_ID", description="Id of the access key.")
    secret_access_key: Secret = setting(
        SecretStr(""),
        env="AWS_SECRET_ACCESS_KEY",
        description="Secret of the access key.",
    )
    directory: Path = setting(
        Path("var/cold"),
        env="WEBHOOK_COLD_DIRECTORY",
        description="Where cold contexts lie without a bucket; all replicas must share it.",
    )
    checksum_mode: Literal["when_supported", "when_required"] = setting(
        "when_supported",
        description="when_required: send no checksums to a server that does not understand them.",
    )
    conditional_writes: bool = setting(
        True, description="Ask the server to refuse a write that would replace something."
    )

    @model_validator(mode="after")
    def _whole_credential(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key.get_secret_value()):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both or none")
        return self


class ContextWebhook(ServiceGroup):
    """`webhook`, as far as the context store reads it."""

    encryption: EncryptionSection = EncryptionSection()
    context_lifecycle: ContextLifecycleSection = ContextLifecycleSection()
    cold_storage: ColdStorageSection = ColdStorageSection()


class ContextSettings(ServiceSettings):
    """All that one process of the context store reads."""

    webhook: ContextWebhook = ContextWebhook()
