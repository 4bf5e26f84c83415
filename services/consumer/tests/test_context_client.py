"""How appends are spread over calls."""

from typing import Any

import pytest
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer import context_client
from webhook_consumer.append import Append
from webhook_consumer.context_client import Addition


def addition(number: int, payload: bytes = b"{}") -> Addition:
    said: dict[str, Any] = dict.fromkeys(Append._fields, "") | {"labels": (), "links": (), "occurred": None}
    return Addition(
        WebhookEvent(id=str(number), payload=payload), Append(**said | {"context_id": str(number)}), ""
    )


def calls(additions: list[Addition]) -> list[list[str]]:
    requests = context_client._requests(additions)
    return [[append.context_id for append in request.appends] for request in requests]


# The bounds are made small: at a thousand appends and 16 MiB the same would be shown more slowly.


def test_a_call_has_no_more_appends_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_client, "MOST_APPENDS", 2)
    assert calls([]) == []
    assert calls([addition(number) for number in range(5)]) == [["0", "1"], ["2", "3"], ["4"]]


def test_a_call_is_no_larger_than_it_may_be_unless_one_append_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_client, "MOST_BYTES", 300)
    sizes = (100, 100, 100, 1000, 10, 10)
    additions = [addition(number, b"x" * size) for number, size in enumerate(sizes)]
    assert calls(additions) == [["0", "1"], ["2"], ["3"], ["4", "5"]]


def test_a_rehearsal_stays_one_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_client, "MOST_APPENDS", 1)
    requests = context_client._requests([addition(1), addition(2)], dry_run=True)
    assert [request.dry_run for request in requests] == [True, True]
