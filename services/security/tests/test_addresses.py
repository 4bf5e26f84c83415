"""Allow-lists: from the configuration, a file, a page; enforced or observed; the last good one is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY
from webhook.event.v1.event_pb2 import (
    ADDRESS_VERDICT_LISTED,
    ADDRESS_VERDICT_UNLISTED,
    ADDRESS_VERDICT_UNSPECIFIED,
)
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    REFUSAL_ADDRESS,
    REFUSAL_INTERNAL,
    REFUSAL_SIGNATURE_INVALID,
    Producer,
    Verdict,
)
from webhook.security.v1.admission_service_pb2 import AdmitRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook_security.limits.address_origins import Unreadable, read_networks
from webhook_security.limits.addresses import Addresses, addresses_of
from webhook_security.settings import SecuritySection, SecuritySettings
from webhook_shared import redis as store
from webhook_shared.networks import parse_address
from webhook_shared.settings import RedisSection, SettingsError

BODY = b'{"action":"opened"}'
META = orjson.dumps({"hooks": ["192.30.252.0/22", "2606:50c0::/32"], "web": ["198.51.100.0/24"]})
POLLED = "50ms"


class Page:
    """A web server of one page, on a real socket."""

    def __init__(self) -> None:
        self.content = META
        self.status = 200
        self.asked = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/meta"

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        head = f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(self.content)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + self.content)
        await writer.drain()
        writer.close()


@pytest.fixture
def page() -> Page:
    return Page()


Keep = Callable[..., Any]


@pytest.fixture
def keep(redis: store.Client) -> Keep:
    """`async with keep(github=[...]) as addresses`: kept fresh while inside."""

    @asynccontextmanager
    async def kept(**allowed: Any) -> AsyncIterator[Addresses]:
        addresses = addresses_of(SecuritySection(allowed_addresses=allowed), redis)
        assert addresses is not None
        async with addresses.kept():
            yield addresses

    return kept


def verdict_of(addresses: Addresses, peer: str, tool: str = "github") -> int:
    found = addresses.of("default", tool)
    assert found is not None
    return found.verdict(peer)


async def admit(stub: AdmissionServiceStub, delivery: Any) -> Verdict:
    (verdict,) = (await stub.Admit(AdmitRequest(deliveries=[delivery]))).verdicts
    return verdict


async def test_who_is_not_listed_is_refused_before_anything_is_verified(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any
) -> None:
    security = {"allowed_addresses": {"github": ["203.0.113.0/24", "2001:db8::/64"]}}
    async with service(valkey, security=security) as channel:
        stub = AdmissionServiceStub(channel)
        good = sign.github(BODY)
        for peer in ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8::7"):
            assert (await admit(stub, deliver("github", BODY, good, peer_address=peer))).event.sealed
        for peer in ("203.0.114.7", "2001:db8:0:1::7", "", "nobody", "203.0.113.7, 6.6.6.6"):
            for headers in (good, sign.github(b"forged")):
                verdict = await admit(stub, deliver("github", BODY, headers, peer_address=peer))
                assert verdict.refusal == REFUSAL_ADDRESS
        # A listed address proves nothing by itself, and other tools have no list.
        forged = await admit(stub, deliver("github", BODY, sign.github(b"forged")))
        assert forged.refusal == REFUSAL_SIGNATURE_INVALID
        elsewhere = deliver("jira", BODY, sign.jira(BODY), peer_address="8.8.8.8")
        assert (await admit(stub, elsewhere)).outcome == OUTCOME_ADMITTED


async def test_the_verdict_travels_with_the_event(
    make_judge: Any, redis: store.Client, sign: Any, deliver: Any
) -> None:
    allowed = {"github": {"networks": ["203.0.113.0/24"], "mode": "observe"}}
    judge = make_judge(SecuritySection(allowed_addresses=allowed))
    judge.admission._addresses = Addresses(SecuritySection(allowed_addresses=allowed), redis)

    def told(tool: str, peer: str) -> int:
        delivery = deliver(tool, BODY, getattr(sign, tool)(BODY), peer_address=peer)
        return int(judge.opened(judge(delivery)).trust.address_verdict)

    labels = {"tool": "github", "verdict": "unlisted"}
    before = REGISTRY.get_sample_value("webhook_security_address_verdicts_total", labels) or 0
    assert told("github", "203.0.113.7") == ADDRESS_VERDICT_LISTED
    assert told("github", "203.0.114.7") == ADDRESS_VERDICT_UNLISTED
    assert told("jira", "203.0.114.7") == ADDRESS_VERDICT_UNSPECIFIED
    assert REGISTRY.get_sample_value("webhook_security_address_verdicts_total", labels) == before + 1


async def test_a_producer_of_ours_is_where_it_is(service: Any, valkey: RedisSection, deliver: Any) -> None:
    async with service(valkey, security={"allowed_addresses": {"github": ["203.0.113.0/24"]}}) as channel:
        produced = deliver("github", BODY, {}, peer_address="")
        produced.producer.CopyFrom(Producer(key_id="k", type="push", delivery_id="1"))
        assert (await admit(AdmissionServiceStub(channel), produced)).outcome == OUTCOME_ADMITTED


async def test_a_tenant_has_a_list_of_its_own(redis: store.Client) -> None:
    tenants = {"beta": {"allowed_addresses": {"github": ["10.0.0.0/8"]}}}
    security = SecuritySection(
        allowed_addresses={"github": ["192.0.2.0/24"], "jira": ["::1"]}, tenants=tenants
    )
    addresses = Addresses(security, redis)
    for tenant, peer in (("beta", "10.1.1.1"), ("default", "192.0.2.1"), ("other", "192.0.2.1")):
        found = addresses.of(tenant, "github")
        assert found
        assert found.verdict(peer) == ADDRESS_VERDICT_LISTED
        assert found.verdict("8.8.8.8") == ADDRESS_VERDICT_UNLISTED
    assert addresses.of("beta", "jira") is addresses.of("default", "jira")
    assert addresses.of("default", "gitlab") is None


async def test_without_lists_there_is_nothing(redis: store.Client) -> None:
    assert addresses_of(SecuritySection(tenants={"beta": {}}), redis) is None


async def test_a_page_is_read_and_read_again(page: Page, keep: Keep, until: Any) -> None:
    async with (
        page.served(),
        keep(github={"networks": [f"{page.url}#/hooks"], "refresh": POLLED}) as addresses,
    ):
        assert verdict_of(addresses, "192.30.252.1") == ADDRESS_VERDICT_LISTED
        assert verdict_of(addresses, "2606:50c0::1") == ADDRESS_VERDICT_LISTED
        assert verdict_of(addresses, "198.51.100.1") == ADDRESS_VERDICT_UNLISTED
        page.content = orjson.dumps({"hooks": ["198.51.100.0/24"]})
        await until(lambda: verdict_of(addresses, "198.51.100.1") == ADDRESS_VERDICT_LISTED)
        assert verdict_of(addresses, "192.30.252.1") == ADDRESS_VERDICT_UNLISTED


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, META),
        (302, META),
        (200, b""),
        (200, b'{"hooks":[]}'),
        (200, b'{"hooks":["0.0.0.0/99"]}'),
        (200, b"<"),
    ],
)
async def test_the_last_good_list_holds(
    page: Page, keep: Keep, until: Any, *, status: int, content: bytes
) -> None:
    async with (
        page.served(),
        keep(github={"networks": [f"{page.url}#/hooks"], "refresh": POLLED}) as addresses,
    ):
        page.status, page.content, page.asked = status, content, 0
        await until(lambda: page.asked >= 2)
        assert verdict_of(addresses, "192.30.252.1") == ADDRESS_VERDICT_LISTED
        assert verdict_of(addresses, "8.8.8.8") == ADDRESS_VERDICT_UNLISTED
        page.status, page.content = 200, orjson.dumps({"hooks": ["8.8.8.8"]})
        await until(lambda: verdict_of(addresses, "8.8.8.8") == ADDRESS_VERDICT_LISTED)


async def test_the_last_good_list_outlives_a_restart(page: Page, keep: Keep, until: Any) -> None:
    async with page.served():
        allowed = {"networks": [f"{page.url}#/hooks"], "refresh": POLLED}
        async with keep(github=allowed):
            pass
    async with keep(github=allowed) as addresses:
        assert verdict_of(addresses, "192.30.252.1") == ADDRESS_VERDICT_LISTED
        assert verdict_of(addresses, "8.8.8.8") == ADDRESS_VERDICT_UNLISTED


async def test_a_list_that_was_never_read_lets_nobody_in_and_refuses_nobody_for_good(
    page: Page, service: Any, valkey: RedisSection, until: Any, *, sign: Any, deliver: Any
) -> None:
    async with page.served():
        pass
    allowed = {"networks": [f"{page.url}#/hooks", "203.0.113.0/24"], "refresh": POLLED}
    async with service(valkey, security={"allowed_addresses": {"github": allowed}}) as channel:
        stub = AdmissionServiceStub(channel)
        unknown = deliver("github", BODY, sign.github(BODY), peer_address="192.30.252.1")
        verdict = await admit(stub, unknown)
        assert (verdict.refusal, verdict.retry_after.seconds) == (REFUSAL_INTERNAL, 1)
        # What stands in the configuration holds all the same.
        known = deliver("github", BODY, sign.github(BODY), peer_address="203.0.113.1")
        assert (await admit(stub, known)).outcome == OUTCOME_ADMITTED
        async with page.served():
            await until(lambda: page.asked >= 1)
            async with asyncio.timeout(5):
                while (await admit(stub, unknown)).outcome != OUTCOME_ADMITTED:
                    await asyncio.sleep(0.01)


async def test_a_file_is_read_again(tmp_path: Path, keep: Keep, until: Any) -> None:
    file = tmp_path / "allowed"
    file.write_text("# ours\n192.0.2.0/24  # the old house\n\n2001:db8::7\n")
    async with keep(github={"networks": [f"file:{file}"], "refresh": POLLED}) as addresses:
        assert verdict_of(addresses, "192.0.2.1") == ADDRESS_VERDICT_LISTED
        assert verdict_of(addresses, "2001:db8::7") == ADDRESS_VERDICT_LISTED
        file.write_text("198.51.100.0/24")
        await until(lambda: verdict_of(addresses, "192.0.2.1") == ADDRESS_VERDICT_UNLISTED)
        file.unlink()
        await asyncio.sleep(0.1)
        assert verdict_of(addresses, "198.51.100.1") == ADDRESS_VERDICT_LISTED


async def test_many_peers_are_remembered_within_bounds(keep: Keep) -> None:
    async with keep(github=["192.0.2.0/24"]) as addresses:
        for number in range(10_000):
            verdict_of(addresses, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        assert len(addresses.of("default", "github")._known) <= 4096


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (b'["192.0.2.0/24"]', ""),
        (b'{"hooks":["192.0.2.0/24"],"web":["bad"]}', "/hooks"),
        (b'{"a":{"b/c":[["x"],["192.0.2.1"]]}}', "/a/b~1c/1"),
        # As Atlassian publishes them.
        (b'{"items":[{"cidr":"192.0.2.0/25"},{"cidr":"::/64"}]}', "/items/*/cidr"),
        (b'{"x":{"a":["192.0.2.1"],"b":["::1"]}}', "/x/*"),
        (b"192.0.2.0/24\r\n::1\r\n", ""),
    ],
)
def test_networks_are_found(content: bytes, pointer: str) -> None:
    assert parse_address("192.0.2.1") in read_networks(content, pointer)


@pytest.mark.parametrize(
    ("content", "pointer"),
    [
        (b"", ""),
        (b"{}", ""),
        (b"[]", ""),
        (b"[1]", ""),
        (b'{"hooks":["192.0.2.0/24"]}', "/nothing"),
        (b'{"hooks":["192.0.2.0/24", null]}', "/hooks"),
        (b"192.0.2.0/24", "/hooks"),
        (b"<html>192.0.2.0/24</html>", ""),
        (b'["192.0.2.1/24"]', ""),
        (b"\xff\xfe", ""),
    ],
)
def test_what_is_no_list_is_refused_whole(content: bytes, pointer: str) -> None:
    with pytest.raises(Unreadable):
        read_networks(content, pointer)


@pytest.mark.parametrize(
    "written",
    [
        "[10.0.0.1/8]",
        "[example.com]",
        "[]",
        "['http://example.com/list']",
        "['ftp://x/y']",
        "{mode: enforce}",
    ],
)
def test_a_list_that_can_not_be_is_refused_at_the_start(tmp_path: Path, written: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"webhook: {{security: {{allowed_addresses: {{github: {written}}}}}}}")
    with pytest.raises(SettingsError, match=r"webhook\.security\.allowed_addresses\.github"):
        SecuritySettings.load(file=file, environ={})
