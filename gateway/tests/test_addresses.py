"""Who sent it, where proxies stand between: what the sender itself writes is never believed."""

from __future__ import annotations

import pytest
from webhook_gateway.edge.addresses import FORWARDED, X_FORWARDED_FOR, Proxies
from webhook_shared.networks import Networks

TRUSTED = Networks.parse(["10.0.0.0/8", "2001:db8:aaaa::/48", "127.0.0.1"])
PROXY = "10.0.0.1"


def sender(header: bytes, *values: bytes, peer: str = PROXY) -> str:
    return Proxies(TRUSTED, header).sender(peer, [(b"host", b"h"), *((header, value) for value in values)])


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ([b"203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ([b"203.0.113.7, 10.0.0.2, 10.0.0.3"], "203.0.113.7"),
        ([b"6.6.6.6", b"203.0.113.7,10.0.0.2"], "203.0.113.7"),
        ([b"6.6.6.6, 10.0.0.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ([b"10.0.0.5, 10.0.0.2"], "10.0.0.5"),
        ([b"2001:db8::7"], "2001:db8::7"),
        ([b"[2001:db8::7]:4711, 2001:db8:aaaa::1"], "2001:db8::7"),
        ([b"203.0.113.7:4711"], "203.0.113.7"),
        ([b"::ffff:203.0.113.7"], "203.0.113.7"),
        ([b"6.6.6.6, ::ffff:10.0.0.2"], "6.6.6.6"),
        # A proxy that does not know says nothing of what stands to the left of it.
        ([b"6.6.6.6, unknown"], PROXY),
        ([b"6.6.6.6, unknown, 10.0.0.2"], "10.0.0.2"),
        ([b"6.6.6.6,"], PROXY),
        ([b""], PROXY),
        ([b"\xff\x00, 203.0.113.7"], "203.0.113.7"),
        ([], PROXY),
    ],
)
def test_x_forwarded_for(written: list[bytes], found: str) -> None:
    assert sender(X_FORWARDED_FOR, *written) == found


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ([b"for=203.0.113.7"], "203.0.113.7"),
        ([b'for=6.6.6.6, for="[2001:db8::7]:4711";proto=https;by=10.0.0.1'], "2001:db8::7"),
        ([b"proto=https; For=203.0.113.7:80"], "203.0.113.7"),
        ([b"for=203.0.113.7, for=10.0.0.2;by=10.0.0.1"], "203.0.113.7"),
        ([b"for=6.6.6.6, for=_hidden"], PROXY),
        ([b"for=6.6.6.6, by=10.0.0.1"], PROXY),
        # A quote that the sender opens does not swallow what the proxy adds.
        ([b'for="6.6.6.6', b"for=203.0.113.7"], "203.0.113.7"),
        ([b'for="6.6.6.6, for=203.0.113.7'], "203.0.113.7"),
    ],
)
def test_forwarded(written: list[bytes], found: str) -> None:
    assert sender(FORWARDED, *written) == found


def test_nobody_else_is_believed() -> None:
    assert sender(X_FORWARDED_FOR, b"6.6.6.6", peer="203.0.113.7") == "203.0.113.7"
    assert sender(X_FORWARDED_FOR, b"6.6.6.6", peer="") == ""
    # The proxies write one header; the other could only be the sender's.
    assert Proxies(TRUSTED, FORWARDED).sender(PROXY, [(X_FORWARDED_FOR, b"6.6.6.6")]) == PROXY
    assert Proxies(TRUSTED, X_FORWARDED_FOR).sender(PROXY, [(FORWARDED, b"for=6.6.6.6")]) == PROXY


def test_a_long_chain_is_followed_only_so_far() -> None:
    assert sender(X_FORWARDED_FOR, b",".join([b"6.6.6.6"] + [b"10.0.0.2"] * 5000)) == "10.0.0.2"


@pytest.mark.parametrize(
    ("proxies", "header", "seen"),
    [
        ((), "X-Forwarded-For: 6.6.6.6", "127.0.0.1"),
        (("192.0.2.0/24",), "X-Forwarded-For: 6.6.6.6", "127.0.0.1"),
        (("127.0.0.0/8",), "X-Forwarded-For: 6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (("127.0.0.0/8",), "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9", "203.0.113.9"),
        (("127.0.0.0/8",), "Forwarded: for=6.6.6.6", "127.0.0.1"),
    ],
)
async def test_security_sees_the_sender(house_with, kit, proxies, header, seen) -> None:
    async with house_with(trusted_proxies=proxies) as house:
        assert (await house.ask(kit.post(extra=f"{header}\r\n"))).status == 202
        assert [delivery.peer_address for delivery in house.judge.seen] == [seen]


async def test_the_other_header_may_be_chosen(house_with, kit) -> None:
    async with house_with(trusted_proxies=("127.0.0.1",), forwarded_header="Forwarded") as house:
        extra = 'X-Forwarded-For: 6.6.6.6\r\nForwarded: for="[2001:db8::9]:80"\r\n'
        assert (await house.ask(kit.post(extra=extra))).status == 202
        assert [delivery.peer_address for delivery in house.judge.seen] == ["2001:db8::9"]
