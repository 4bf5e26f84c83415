"""Every payload that GitHub's own examples hold becomes something a person can read."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.normalize import Normalizer

PACKAGE = "node_modules/@octokit/webhooks-examples"
EXAMPLES = "api.github.com/index.json"
EXAMPLE_COUNT = 329


def _folder() -> Path:
    named = os.environ.get("WEBHOOK_GITHUB_EXAMPLES")
    if named:
        return Path(named)
    root = next((parent for parent in Path(__file__).parents if (parent / PACKAGE).is_dir()), Path())
    return root / PACKAGE


@pytest.fixture(scope="module")
def events() -> list[WebhookEvent]:
    file = _folder() / EXAMPLES
    if not file.is_file():
        missing = f"needs npm @octokit/webhooks-examples (npm ci, or WEBHOOK_GITHUB_EXAMPLES): no {file}"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    examples: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return [
        WebhookEvent(
            tool="github",
            type=event["name"],
            action=str(payload.get("action", "")),
            payload=json.dumps(payload).encode(),
            content_type="application/json",
        )
        for event in examples
        for payload in event["examples"]
    ]


def test_every_example_is_readable(events: list[WebhookEvent]) -> None:
    normalizer = Normalizer.load()
    assert len(events) == EXAMPLE_COUNT
    for event in events:
        appends = normalizer.normalize(event)
        assert appends
        for append in appends:
            assert append.context_id.startswith("github:"), event.type
            assert append.type == event.type
            assert append.title, event.type
            assert append.text, event.type
            assert append.kind, event.type
            assert append.context_id not in {link.context_id for link in append.links}
            assert "{" not in append.context_id


def test_every_example_finds_more_than_the_fallback_of_an_unknown_sender(events: list[WebhookEvent]) -> None:
    normalizer = Normalizer.load()
    fallbacks = [event.type for event in events if ":type:" in normalizer.normalize(event)[0].context_id]
    assert not fallbacks


def test_speed_is_told(events: list[WebhookEvent]) -> None:
    normalizer = Normalizer.load()
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for event in events:
            normalizer.normalize(event)
        best = min(best, time.process_time() - start)
    print(f"\nnormalised {len(events) / best:,.0f} examples per second of one core, parsing included")
