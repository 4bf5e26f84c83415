"""What a source asks for beyond the stream reaches every verdict of its events."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from webhook.security.v1.admission_pb2 import (
    DURABILITY_FSYNCED,
    DURABILITY_REPLICATED,
    DURABILITY_UNSPECIFIED,
)
from webhook_security.settings import SecuritySection

BODY = b'{"action":"opened"}'


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, DURABILITY_UNSPECIFIED),
        ({"durability": "fast"}, DURABILITY_UNSPECIFIED),
        ({"durability": "replicated"}, DURABILITY_REPLICATED),
        ({"durability": "fsynced"}, DURABILITY_FSYNCED),
    ],
)
def test_a_source_may_ask_for_more_than_the_stream(
    make_judge: Any, sign: Any, deliver: Any, asked: dict[str, str], told: int
) -> None:
    judge = make_judge(SecuritySection.model_validate({"sources": {"github": asked}}))
    assert judge(deliver("github", BODY, sign.github(BODY))).durability == told
    # What can't be read is kept as well as the rest; another source asks for nothing.
    unreadable = b"no JSON"
    assert judge(deliver("github", unreadable, sign.github(unreadable))).durability == told
    assert judge(deliver("jira", BODY, sign.jira(BODY))).durability == DURABILITY_UNSPECIFIED


def test_a_durability_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="durability"):
        SecuritySection.model_validate({"sources": {"github": {"durability": "journaled"}}})
