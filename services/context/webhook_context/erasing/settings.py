"""What an operator can set for erasures on request."""

from __future__ import annotations

from pydantic import SecretStr
from webhook_shared.settings import Secret, Section, setting


class ErasureSection(Section):
    """`webhook.erasure`: certificates of what was erased."""

    signing_key: Secret = setting(
        SecretStr(""),
        env="WEBHOOK_ERASURE_SIGNING_KEY",
        description="Signs the certificates: 32 random characters or more; else a key does that follows "
        "from the first master key.",
    )
