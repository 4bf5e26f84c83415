"""What is secret stays so: no payload and no credential in a log, a metric, a span, or in Redis in clear."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from webhook.security.v1.security_admin_service_pb2 import ROLE_READER
from webhook_shared.redis import connect

from tests import payloads, wire
from tests.collector import Collector
from tests.patience import eventually
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Planted:
    """Strings that stand nowhere but in what was sent, by where that was.

    Attributes:
        contents: Of payloads and requests, taken or not.
        credentials: Secrets of senders and of the house.
    """

    contents: dict[str, str]
    credentials: dict[str, str]

    def found_in(self, haystack: bytes) -> list[str]:
        """What of it can be read there."""
        everything = self.contents | self.credentials
        return [where for where, needle in everything.items() if needle.encode() in haystack]


def _needle() -> str:
    return f"zq{secrets.token_hex(12)}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def planted(house: House, collector: Collector) -> Planted:
    """Webhooks of all fates, each with a string of its own in each of its places."""
    places = (
        "title",
        "body",
        "login",
        "header",
        "query",
        "forged",
        "quarantined",
        "unknown tool",
        "ingested",
    )
    contents = {place: _needle() for place in places}
    github = house.senders.github
    issue = payloads.github_issue(
        "octo/hush", 1, contents["title"], contents["body"], login=contents["login"]
    )
    delivery = github.deliver("issues", issue)
    asked = delivery.at(f"{delivery.path}?token={contents['query']}")
    assert (await house.post(asked.having("X-Custom", contents["header"]))).status == 202
    forged = delivery.saying(delivery.body + contents["forged"].encode())
    assert (await house.post(forged)).status == 401
    assert (await house.post(github.deliver("issues", contents["quarantined"].encode()))).status == 202
    stranger = delivery.at(f"/webhooks/{contents['unknown tool']}")
    assert (await house.post(stranger)).status == 404
    await house.operator.enriched("github:octo/hush:issue:1")
    await house.operator.search(contents["title"])
    credentials = {
        name: value
        for name, value in {**house.system.secrets, **house.environ}.items()
        if name.endswith(("_SECRET", "_KEY", "_TOKEN"))
    }
    credentials["operator key"] = house.system.operator_key
    credentials["reader key"] = await house.key(ROLE_READER, tenants=("default",))
    reader = await house.client(credentials["reader key"])
    await reader.context("github:octo/hush:issue:1")
    return Planted(contents, credentials)


async def test_logs_tell_nothing(house: House, planted: Planted) -> None:
    assert "process.started" in house.log
    assert planted.found_in(house.log.encode()) == []


async def test_metrics_tell_nothing(house: House, planted: Planted) -> None:
    for service, address in house.system.plan.metrics.items():
        page = await wire.get(address, "/metrics")
        assert page.status == 200
        assert b"webhook_" in page.body, service
        assert planted.found_in(page.body) == []


async def test_spans_tell_nothing(collector: Collector, planted: Planted) -> None:
    async def attempt() -> bytes:
        spans = collector.spans()
        assert spans
        return b"".join(recorded.span.SerializeToString() for recorded in spans)

    assert planted.found_in(await eventually(attempt)) == []


async def test_redis_holds_nothing_in_clear(house: House, planted: Planted) -> None:
    client = connect(house.system.plan.redis)
    try:
        assert await client.exists("ctx:{default:github:octo/hush:issue:1}")
        # Whatever has been written is in the file once the server has synced it.
        await client.waitaof(1, 0, 5000)
    finally:
        await client.aclose()
    files = dict(await asyncio.to_thread(_files_below, house.system.var / "redis"))
    assert any(b"octo/hush" in content for content in files.values())
    assert {name: found for name, content in files.items() if (found := planted.found_in(content))} == {}


async def test_answers_repeat_nothing(house: House, planted: Planted) -> None:
    for target in ("/webhooks/github", "/webhooks/nobody", "/health/webhook", "/"):
        needle = _needle()
        answer = await wire.exchange(
            house.http,
            wire.request_head(
                f"{target}?q={needle}", [("X-Hub-Signature-256", needle), ("Content-Length", "3")]
            )
            + b"abc",
        )
        assert needle not in str(answer)


def _files_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    for file in directory.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(directory)), file.read_bytes()
