"""What is set of the audit chain: the same for every service whose administration is put on record."""

from __future__ import annotations

from pydantic import ConfigDict

from webhook_shared.settings import Section, setting


class AuditSection(Section):
    """`webhook.security.audit`: the audit chain."""

    max_records: int = setting(
        200_000,
        ge=1000,
        le=100_000_000,
        description="How many are kept, about 200 bytes each; export them before the oldest go.",
    )


class AuditedSection(Section):
    """`webhook.security`, as far as every service reads it whose administration is put on record."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=False)

    enable_audit_logging: bool = setting(True, description="Whether the audit chain is written.")
    audit: AuditSection = AuditSection()
