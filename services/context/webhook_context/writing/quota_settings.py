"""What a tenant may keep."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import model_validator
from webhook_shared.settings import ByteCount, Duration, Section, setting


class TenantQuotaSection(Section):
    """One entry of `webhook.context_quotas.tenants`; what it leaves out is unlimited."""

    max_contexts: int = setting(0, ge=0, description="Contexts that it may have; 0: as many as there are.")
    max_bytes: ByteCount = setting(
        0, description="Bytes of its events and payloads, as they lie in all tiers; 0: without limit."
    )


class ContextQuotasSection(Section):
    """`webhook.context_quotas`: how much each tenant may keep."""

    max_contexts: int = setting(
        0, ge=0, description="Contexts that a tenant may have which `tenants` does not name; 0: no limit."
    )
    max_bytes: ByteCount = setting(
        0, description="Bytes of events and payloads of such a tenant, as they lie in all tiers; 0: no limit."
    )
    tenants: dict[str, TenantQuotaSection] = setting({}, description="What holds for single tenants instead.")
    count_interval: Duration = setting(
        timedelta(minutes=1),
        description="How often bytes are counted anew: moving, deleting and erasing free some.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.count_interval < timedelta(seconds=1):
            raise ValueError("count_interval must be 1s or more")
        return self
