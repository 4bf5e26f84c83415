"""RFC 7396, and what a patch does to a context."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from webhook.context.v1 import context_pb2
from webhook.context.v1 import context_service_pb2 as pb
from webhook_context.domain.merge_patch import PatchError, merged, parsed

ISSUE = "github:octo/hello:issue:1"

#: The table of appendix A.
APPENDIX = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("target", "patch", "result"), APPENDIX)
def test_the_appendix(target: str, patch: str, result: str) -> None:
    before = json.loads(target)
    assert merged(before, json.loads(patch)) == json.loads(result)
    assert before == json.loads(target)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a":NaN}', '{"a":' * 100 + "1" + "}" * 100])
def test_texts_that_are_no_patch(text: str) -> None:
    with pytest.raises(PatchError):
        parsed(text)


async def _patch(house: Any, patch: Any, **asked: Any) -> Any:
    text = patch if isinstance(patch, str) else json.dumps(patch)
    request = pb.PatchContextRequest(tenant="acme", context_id=ISSUE, merge_patch_json=text, **asked)
    return (await house.contexts.PatchContext(request)).context


async def test_a_patch_needs_no_reading_first(house: Any, make: Any) -> None:
    await house.append(make("e1", title="from the sender", labels=["bug"]))
    await _patch(house, {"attributes": {"team": "pay", "sla": {"hours": 4}}, "pinned": True})
    found = await _patch(house, {"title": None, "attributes": {"sla": {"hours": 8}, "team": None}})
    assert json.loads(found.attributes_json) == {"sla": {"hours": 8}}
    assert (found.title, list(found.labels), found.pinned) == ("", ["bug"], True)
    assert json.loads((await house.get(ISSUE)).attributes_json) == {"sla": {"hours": 8}}
    assert not (await _patch(house, {"attributes": None})).attributes_json


async def test_a_repeated_patch_changes_nothing_more(house: Any, make: Any, refused: Any) -> None:
    await house.append(make("e1"))
    request_id = str(uuid.uuid4())
    first = await _patch(house, {"labels": ["x"]}, request_id=request_id)
    assert (await _patch(house, {"labels": ["x"]}, request_id=request_id)).version == first.version
    await refused(_patch(house, {"title": "x"}, etag="1-1"), "ABORTED", "ETAG_MISMATCH")


@pytest.mark.parametrize(
    "patch",
    [
        "no json",
        {"state": "open"},
        {"title": 3},
        {"labels": "bug"},
        {"labels": [1]},
        {"pinned": 1},
        {"attributes": []},
        {"attributes": {"a": "x" * 70_000}},
    ],
)
async def test_patches_that_are_refused(house: Any, make: Any, refused: Any, patch: Any) -> None:
    await house.append(make("e1"))
    await refused(_patch(house, patch), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_attributes_stay_bounded(house: Any, make: Any, refused: Any) -> None:
    await house.append(make("e1"))
    await _patch(house, {"attributes": {"a": "x" * 60_000}})
    await refused(_patch(house, {"attributes": {"b": "x" * 60_000}}), "INVALID_ARGUMENT", "FIELD_INVALID")


async def _revisions(house: Any, **asked: Any) -> Any:
    request = pb.ListRevisionsRequest(tenant="acme", context_id=ISSUE, **asked)
    return await house.contexts.ListRevisions(request)


async def test_what_was_changed_by_hand_is_remembered(house: Any, make: Any, refused: Any) -> None:
    await refused(_revisions(house), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await house.append(make("e1", title="first"))
    await house.update(context_pb2.Context(tenant="acme", context_id=ISSUE, title="second"), "title")
    await _patch(house, {"pinned": True, "attributes": {"a": 1}})
    await house.enrich(ISSUE, "a summary")
    newest, patched, oldest = (await _revisions(house)).revisions
    assert (list(newest.changed), newest.summary) == (["enrichment"], "a summary")
    assert sorted(patched.changed) == ["attributes", "pinned"]
    assert (patched.title, patched.pinned, patched.attributes_json) == ("second", True, '{"a":1}')
    assert (list(oldest.changed), oldest.title, oldest.version) == (["title"], "second", 2)
    assert newest.version == (await house.get(ISSUE)).version


async def test_the_memory_is_bounded_and_paged(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    for n in range(53):
        await _patch(house, {"title": f"title {n}"})
    page = await _revisions(house, page_size=30)
    rest = await _revisions(house, page_size=30, page_token=page.next_page_token)
    titles = [one.title for one in [*page.revisions, *rest.revisions]]
    assert titles == [f"title {n}" for n in range(52, 2, -1)]
    assert not rest.next_page_token
