"""From a signed webhook to a context that can be read and found, for every kind of sender."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import pytest
import pytest_asyncio
from webhook.context.v1.context_pb2 import Context

from tests import payloads
from tests.clients import DEFAULT_TENANT
from tests.e2e.stories import STORIES, Story
from tests.patience import eventually
from tests.senders import Delivery
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Told:
    """A story that has been sent: what was sent, and which event each delivery became."""

    story: Story
    deliveries: tuple[Delivery, ...]
    event_ids: tuple[str, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def told(house: House) -> dict[str, Told]:
    """Every story, sent once."""
    found = {}
    for story in STORIES:
        deliveries = tuple(story.happenings(house.senders))
        event_ids = tuple([await house.accepted(delivery) for delivery in deliveries])
        found[story.name] = Told(story, deliveries, event_ids)
    return found


def _texts_of(context: Context) -> str:
    return "\n".join([context.title, *(event.text for event in context.events)])


@pytest.mark.parametrize("name", [story.name for story in STORIES])
class TestStory:
    async def test_becomes_a_context(self, house: House, told: dict[str, Told], name: str) -> None:
        story, deliveries = told[name].story, told[name].deliveries
        context = await house.operator.grown(story.context_id, len(deliveries))
        assert context.tenant == DEFAULT_TENANT
        assert context.tool == deliveries[0].path.removeprefix("/webhooks/")
        assert (context.kind, context.title, context.state) == (story.kind, story.title, story.state)
        assert context.event_count == len(deliveries)
        assert not story.actor or story.actor in context.actors
        assert context.version >= 1
        assert context.etag
        assert 0 <= time.time() - context.create_time.seconds < 120

    async def test_keeps_every_event_as_it_was_sent(
        self, house: House, told: dict[str, Told], name: str
    ) -> None:
        story, deliveries, event_ids = told[name].story, told[name].deliveries, told[name].event_ids
        context = await house.operator.grown(story.context_id, len(deliveries))
        by_id = {event.event_id: event for event in context.events}
        assert set(by_id) == set(event_ids)
        for delivery, event_id, kind in zip(deliveries, event_ids, story.types, strict=True):
            assert by_id[event_id].payload == delivery.body
            assert by_id[event_id].content_type == "application/json"
            assert by_id[event_id].type == kind
            assert by_id[event_id].text
            assert by_id[event_id].occurred_time.seconds > 0
            assert 0 <= time.time() - by_id[event_id].received_time.seconds < 120

    async def test_is_understood(self, house: House, told: dict[str, Told], name: str) -> None:
        story = told[name].story
        await house.operator.grown(story.context_id, len(told[name].deliveries))
        context = await house.operator.enriched(story.context_id)
        enrichment = context.enrichment
        assert enrichment.summary
        assert enrichment.summary_model
        assert 0 < enrichment.importance <= 1
        assert enrichment.importance_factors
        assert len(enrichment.vector) == enrichment.embedding_model.dimension > 0
        assert math.isclose(sum(each * each for each in enrichment.vector), 1, abs_tol=1e-3)
        assert enrichment.covered_event_id in told[name].event_ids
        # The local summary only ever picks from what was said.
        words = _texts_of(context).lower()
        assert any(word in words for word in enrichment.summary.lower().split() if len(word) > 4)

    async def test_is_found_by_meaning(self, house: House, told: dict[str, Told], name: str) -> None:
        story = told[name].story
        await house.operator.enriched(story.context_id)

        async def attempt() -> None:
            matches = await house.operator.search(story.question)
            nearest = matches[0]
            assert nearest.context.context_id == story.context_id, [
                (match.context.context_id, round(match.score, 3), round(match.similarity, 3))
                for match in matches
            ]
            assert nearest.similarity > 0.2
            assert not any(match.context.events or match.context.enrichment.vector for match in matches)

        await eventually(attempt)

    async def test_delivered_again_is_one_event(self, house: House, told: dict[str, Told], name: str) -> None:
        story, deliveries, event_ids = told[name].story, told[name].deliveries, told[name].event_ids
        await house.operator.grown(story.context_id, len(deliveries))
        for delivery, event_id in zip(deliveries, event_ids, strict=True):
            answer = await house.post(delivery)
            assert answer.status in {200, 202}
            assert answer.duplicate
            assert answer.event_id == event_id
        context = await house.operator.context(story.context_id)
        assert context is not None
        assert context.event_count == len(deliveries)

    async def test_forged_is_refused_and_not_kept(
        self, house: House, told: dict[str, Told], name: str
    ) -> None:
        (delivery, *_), story = told[name].deliveries, told[name].story
        before = await house.operator.context(story.context_id)
        stamped = delivery.body.replace(b"{", b'{"forged": true, ', 1)
        forged = delivery.saying(stamped) if name != "gitlab-token" else _wrong_token(delivery, stamped)
        answer = await house.post(forged)
        assert answer.status == 401
        assert b"signature" not in answer.body.lower()
        after = await house.operator.context(story.context_id)
        assert before is not None
        assert after is not None
        assert after.event_count == before.event_count


def _wrong_token(delivery: Delivery, body: bytes) -> Delivery:
    """A token covers no body: what is wrong must be the token."""
    return delivery.saying(body).having("X-Gitlab-Token", "glpt-" + "0" * 32)


async def test_slack_shakes_hands(house: House) -> None:
    challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    answer = await house.post(house.senders.slack.deliver(payloads.slack_handshake(challenge)))
    assert answer.status == 200
    assert challenge in answer.body.decode()
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "html" not in answer.headers["content-type"]


async def test_slack_must_sign_its_handshake(house: House) -> None:
    delivery = house.senders.slack.deliver(payloads.slack_handshake("reflect-me"))
    answer = await house.post(delivery.having("X-Slack-Signature", "v0=" + "0" * 64))
    assert answer.status == 401
    assert b"reflect-me" not in answer.body


async def test_one_delivery_racing_itself_is_one_event(house: House) -> None:
    import asyncio

    issue = payloads.github_issue("octo/races", 1, "Twice at once", "Both of them.")
    delivery = house.senders.github.deliver("issues", issue)
    answers = await asyncio.gather(*(house.post(delivery) for _ in range(20)))
    assert {answer.status for answer in answers} <= {200, 202}
    assert sum(not answer.duplicate for answer in answers) == 1
    assert len({answer.event_id for answer in answers}) == 1
    context = await house.operator.grown("github:octo/races:issue:1", 1)
    assert context.event_count == 1


async def test_form_encoded_github_is_read_and_kept_as_sent(house: House) -> None:
    from urllib.parse import quote_plus

    from tests.senders import encoded

    issue = payloads.github_issue("octo/forms", 3, "Sent by a hook with default settings", "As a form.")
    body = b"payload=" + quote_plus(encoded(issue)).encode()
    delivery = house.senders.github.deliver("issues", body)
    event_id = await house.accepted(delivery.having("Content-Type", "application/x-www-form-urlencoded"))
    context = await house.operator.grown("github:octo/forms:issue:3", 1)
    assert context.title == "Sent by a hook with default settings"
    assert [(event.event_id, event.payload) for event in context.events] == [(event_id, body)]


async def test_late_arrivals_do_not_turn_back_the_clock(house: House) -> None:
    subject = ("octo/order", 5, "Opened, then closed", "Seen in the wrong order.")
    sender = house.senders.github
    await house.accepted(sender.deliver("issues", payloads.github_issue(*subject, action="closed")))
    await house.operator.grown("github:octo/order:issue:5", 1)
    await house.accepted(sender.deliver("issues", payloads.github_issue(*subject)))
    context = await house.operator.grown("github:octo/order:issue:5", 2)
    assert context.state == "closed"
