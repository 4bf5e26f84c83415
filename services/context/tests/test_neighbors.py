"""What contexts are tied to, in both directions."""

from __future__ import annotations

from typing import Any

from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_pb2 import Link


async def _neighbors(house: Any, context_id: str, **asked: Any) -> Any:
    tenant = asked.pop("tenant", "acme")
    request = pb.ListNeighborsRequest(context_id=context_id, tenant=tenant, **asked)
    return await house.contexts.ListNeighbors(request)


def _ties(response: Any) -> list[tuple[str, str, str, bool]]:
    return [
        (
            pb.LinkDirection.Name(one.direction).removeprefix("LINK_DIRECTION_"),
            one.relation,
            one.context_id,
            one.HasField("context"),
        )
        for one in response.neighbors
    ]


async def _chain(house: Any, make: Any) -> None:
    """A run of a commit of a pull request that fixes an issue, which nobody has told of yet."""
    await house.append(
        make("e1", context_id="pr", links=[Link(relation="fixes", context_id="issue")]),
        make("e2", context_id="pr", links=[Link(relation="head_commit", context_id="commit")]),
        make("e1", context_id="commit", title="A commit"),
        make("e1", context_id="run", links=[Link(relation="run_of", context_id="commit")]),
    )


async def test_both_directions(house: Any, make: Any) -> None:
    await _chain(house, make)
    assert _ties(await _neighbors(house, "pr")) == [
        ("OUT", "fixes", "issue", False),
        ("OUT", "head_commit", "commit", True),
    ]
    found = await _neighbors(house, "commit")
    assert _ties(found) == [("IN", "head_commit", "pr", True), ("IN", "run_of", "run", True)]
    assert (found.neighbors[0].context.tool, found.index_incomplete) == ("github", False)
    outgoing = await _neighbors(house, "commit", direction=pb.LINK_DIRECTION_OUT)
    assert _ties(outgoing) == []
    only = await _neighbors(house, "commit", relations=["run_of"])
    assert _ties(only) == [("IN", "run_of", "run", True)]


async def test_neighbors_follow_what_changes(house: Any, make: Any, refused: Any) -> None:
    await _chain(house, make)
    await house.append(make("e1", context_id="issue", title="The issue"))
    assert _ties(await _neighbors(house, "issue")) == [("IN", "fixes", "pr", True)]
    await house.delete("pr")
    assert _ties(await _neighbors(house, "issue")) == []
    await refused(_neighbors(house, "pr"), "NOT_FOUND", "CONTEXT_NOT_FOUND")


async def test_pages_of_neighbors(house: Any, make: Any, refused: Any) -> None:
    links = [Link(relation="mentions", context_id=f"to{i:02}") for i in range(12)]
    await house.append(make("e1", context_id="hub", links=links))
    hub = [Link(relation="part_of", context_id="hub")]
    await house.append(*[make("e1", context_id=f"from{i:02}", links=hub) for i in range(13)])
    ties, token, pages = [], "", 0
    while True:
        page = await _neighbors(house, "hub", page_size=5, page_token=token)
        ties += _ties(page)
        pages += 1
        if not (token := page.next_page_token):
            break
    assert (len(ties), len(set(ties)), pages) == (25, 25, 5)
    assert [direction for direction, *_ in ties] == ["OUT"] * 12 + ["IN"] * 13
    for asked in ({"page_token": "x"}, {"page_token": "WzFd"}, {"page_size": -1}, {"direction": 7}):
        await refused(_neighbors(house, "hub", **asked), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_no_tenant_sees_who_names_the_context_of_another(house: Any, make: Any) -> None:
    fixes = [Link(relation="fixes", context_id="issue")]
    await house.append(
        make("e1", context_id="issue"),
        make("e1", context_id="ours", links=fixes),
        make("e1", context_id="theirs", links=fixes, tenant="other"),
        make("e1", context_id="issue", tenant="other"),
    )
    assert _ties(await _neighbors(house, "issue")) == [("IN", "fixes", "ours", True)]
    assert _ties(await _neighbors(house, "issue", tenant="other")) == [("IN", "fixes", "theirs", True)]
