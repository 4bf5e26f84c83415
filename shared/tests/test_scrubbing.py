"""What a dictionary is trained on says nothing of anybody."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.dictionaries.scrubbing import Census, Scrubber, learned
from webhook_shared.dictionaries.training import Task, ratio, trained

from shared.tests.dictionary_orders import PLANTED, orders, rewritten

REWRITE = "shared.tests.dictionary_orders:rewritten"
COUNT = 60


@pytest.fixture(scope="module")
def dictionary() -> bytes:
    made = trained(Task(orders(COUNT, seed=1), REWRITE, 1, b"", 32_768)).content
    assert made
    return made


def test_nothing_that_was_planted_is_in_a_dictionary(dictionary: bytes) -> None:
    found = dictionary.lower()
    for planted in PLANTED:
        for at in range(len(planted) - 5):
            assert planted[at : at + 6].lower().encode() not in found, planted


def test_no_value_of_any_sample_is_in_a_dictionary(dictionary: bytes) -> None:
    for sample in orders(COUNT, seed=1):
        order = json.loads(sample)
        for value in (order["order_id"], order["customer"]["customer_login"], str(order["created_at"])):
            assert value.encode() not in dictionary


def test_structure_is_in_it(dictionary: bytes) -> None:
    for word in (b"fulfillment_status", b"customer_email_address", b"accepts_marketing", b"/tax_lines"):
        assert word in dictionary


def test_it_makes_orders_smaller_that_it_has_never_seen(dictionary: bytes) -> None:
    others = orders(50, seed=2)
    assert ratio(others, dictionary, 1) > 1.6 * ratio(others, b"", 1)


def test_a_key_that_few_samples_have_is_somebodys_text() -> None:
    samples = [b'{"state":"open","people":{"grace%d":1}}' % n for n in range(50)]
    vocabulary = learned(samples, rewritten)
    assert vocabulary.keys == {"state", "people"}
    assert "open" in vocabulary.values
    assert b"grace" not in rewritten(samples[0], Scrubber(vocabulary, "seed"))


def test_only_fields_that_hold_one_of_a_few_words_keep_them() -> None:
    samples = [b'{"state":"in progress","name":"grace","type":"a%dz9"}' % n for n in range(50)]
    assert not {"grace", "a1z9"} & learned(samples, rewritten).values
    assert "in progress" in learned(samples, rewritten).values


def test_equal_values_of_a_sample_stay_equal_and_differ_from_what_they_were() -> None:
    sample = b'{"login":"octocat","owner":{"login":"octocat"},"url":"https://example.com/octocat"}'
    vocabulary = learned([sample] * 9, rewritten)
    made = json.loads(rewritten(sample, Scrubber(vocabulary, "a")))
    assert made["login"] == made["owner"]["login"] != "octocat"
    assert made["url"].endswith(f"/{made['login']}")
    assert made != json.loads(rewritten(sample, Scrubber(vocabulary, "b")))


def test_fields_of_messages_are_gone_through() -> None:
    event = WebhookEvent(
        id="a1",
        tool="github",
        type="issues",
        payload=b'{"login":"octocat"}',
        headers={"x-event": "hidden one"},
    )
    event.received_time.FromJsonString("2026-11-20T09:30:00Z")
    census = Census()
    census.message(event)
    assert event.payload == b'{"login":"octocat"}'
    census.end()
    Scrubber(census.vocabulary(), "seed").message(event)
    assert b"octocat" not in event.SerializeToString()
    assert b"hidden" not in event.SerializeToString()
    assert event.received_time.seconds != 1_795_166_400


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_json, st.booleans())
def test_whatever_json_comes_keeps_its_shape(document: Any, ascii_only: bool) -> None:
    sample = json.dumps([document], ensure_ascii=ascii_only).encode(errors="surrogatepass")
    made = rewritten(sample, Scrubber(learned([sample], rewritten), "seed"))
    try:
        sample.decode()
    except UnicodeDecodeError:
        assert made == b""
    else:
        assert _shape(json.loads(made)) == _shape([document])


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_gone_through(sample: bytes) -> None:
    rewritten(sample, Scrubber(learned([sample], rewritten), "seed"))


@pytest.mark.parametrize(
    "sample",
    [
        b'["' + b'\\"' * 30_000,
        b"[" + b'"\\' * 30_000,
        b'["a' + b" " * 60_000,
        b'["a"' + b" " * 60_000,
        b"[" + b'"a" ' * 15_000,
        b"[-" + b"1" * 60_000 + b"e",
        b'["https://' + b"{a" * 30_000,
        b'["' + b"Aa_" * 20_000 + b'":1]',
        b"[" * 60_000,
    ],
)
def test_nothing_that_is_sent_takes_long(sample: bytes) -> None:
    began = time.process_time()
    rewritten(sample, Scrubber(learned([sample], rewritten), "seed"))
    # A tenth of that here; what grows with the square takes minutes.
    assert time.process_time() - began < 3


def _shape(node: Any) -> Any:
    if isinstance(node, dict):
        # Keys that are equal after scrubbing fall together.
        return "object" if node else "empty object"
    if isinstance(node, list):
        return [_shape(one) for one in node]
    return "number" if isinstance(node, int | float) and not isinstance(node, bool) else type(node).__name__
