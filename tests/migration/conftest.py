"""An SQS server, and a town beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from webhook_shared.settings import RedisSection

from shared.tests.sqs_server import CREDENTIALS, sqs_server
from tests.migration.town import SECRET, SECRET_VARIABLE, Town


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with sqs_server() as url:
        yield url


@pytest.fixture
async def town(valkey: RedisSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    for name, value in {**CREDENTIALS, SECRET_VARIABLE: SECRET}.items():
        monkeypatch.setenv(name, value)
    async with Town(valkey, tmp_path).standing() as standing:
        yield standing
