"""What an operator can set for the context store."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import SecretStr, model_validator
from webhook_shared.settings import (
    Duration,
    EncryptionSection,
    Secret,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

_ONE_TIER = "every context stays hot: in Redis, sealed, for as long as it exists"
_NO_COLD_STORE = "nothing moves to object storage; every context stays in Redis"


class ContextLifecycleSection(Section):
    """`webhook.context_lifecycle`: when a context moves to a cheaper place, and in what form."""

    hot_duration: Duration = setting(
        timedelta(minutes=30), not_yet=_ONE_TIER, description="How long an untouched context stays hot."
    )
    warm_duration: Duration = setting(
        timedelta(hours=24), not_yet=_ONE_TIER, description="How long an untouched context stays warm."
    )
    hot_importance_threshold: float = setting(
        0.8, ge=0, le=1, not_yet=_ONE_TIER, description="From this importance on a context stays hot."
    )
    warm_importance_threshold: float = setting(
        0.5, ge=0, le=1, not_yet=_ONE_TIER, description="From this importance on a context stays warm."
    )
    compression_type: Literal["zstd", "gzip", "none"] = setting(
        "zstd", not_yet=_ONE_TIER, description="How warm and cold contexts are compressed."
    )
    compression_level: int = setting(
        6, ge=1, le=22, not_yet=_ONE_TIER, description="Level of the compression; gzip ends at 9."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not timedelta() < self.hot_duration <= self.warm_duration:
            raise ValueError("hot_duration must be above 0s and not above warm_duration")
        if self.warm_importance_threshold > self.hot_importance_threshold:
            raise ValueError("warm_importance_threshold must not be above hot_importance_threshold")
        if self.compression_type == "gzip" and self.compression_level > 9:
            raise ValueError("compression_level of gzip is 1 to 9")
        return self


class ColdStorageSection(Section):
    """`webhook.cold_storage`: the bucket of the cold tier."""

    endpoint: str = setting(
        "",
        env="S3_ENDPOINT",
        pattern=r"^(https?://[^\s/]+/?)?$",
        not_yet=_NO_COLD_STORE,
        description="URL of the S3-compatible store; empty means AWS.",
    )
    bucket: str = setting(
        "",
        env="S3_BUCKET",
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$",
        not_yet=_NO_COLD_STORE,
        description="Name of the bucket; empty means a local directory.",
    )
    region: str = setting(
        "us-east-1",
        env="S3_REGION",
        pattern=r"^[a-z0-9-]{1,64}$",
        not_yet=_NO_COLD_STORE,
        description="Region of the bucket.",
    )
    access_key_id: str = setting(
        "", env="AWS_ACCESS_KEY_ID", not_yet=_NO_COLD_STORE, description="Id of the access key."
    )
    secret_access_key: Secret = setting(
        SecretStr(""),
        env="AWS_SECRET_ACCESS_KEY",
        not_yet=_NO_COLD_STORE,
        description="Secret of the access key.",
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
