"""Addresses and the networks that hold them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from webhook_shared.networks import NetworkList, Networks, household, parse_address, parse_network

ADDRESSES = st.ip_addresses()
NETWORKS = st.builds(
    lambda address, bits: (
        ip_network((int(address), address.max_prefixlen - bits), strict=False)
        if address.version == 6
        else ip_network(f"{address}/{32 - bits}", strict=False)
    ),
    ADDRESSES,
    st.integers(0, 32),
)


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        # A bare IPv6 address is one address, not a /32 of them.
        ("2001:db8::7", "2001:db8::7", "2001:db8::8"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ("::ffff:192.0.2.9", "192.0.2.9", "192.0.2.10"),
        ("fe80::/10", "fe80::1%eth0", "2001:db8::1%eth0"),
    ],
)
def test_membership(network: str, inside: str, outside: str) -> None:
    found = Networks.parse([network])
    assert parse_address(inside) in found
    assert parse_address(outside) not in found


def test_the_same_number_of_the_other_family_is_another_address() -> None:
    assert ip_address(int(ip_address("192.0.2.1"))) in Networks.parse(["192.0.2.0/24"])
    assert ip_address("::c000:201") not in Networks.parse(["192.0.2.0/24"])


@given(st.lists(NETWORKS, max_size=8), ADDRESSES)
def test_a_set_holds_what_one_of_its_networks_holds(networks: list, address: object) -> None:
    assert (address in Networks(networks)) == any(address in network for network in networks)


@given(NETWORKS)
def test_both_ends_of_a_network_are_in_it(network) -> None:
    found = Networks([network])
    assert network.network_address in found
    assert network.broadcast_address in found


@pytest.mark.parametrize(
    "text", ["", "192.0.2.1/24", "192.0.2.0/33", "localhost", "1.2.3", "0x7f000001", "::/129"]
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a network"):
        parse_network(text)


@pytest.mark.parametrize("text", ["", "unknown", "127.1", "1.2.3.4:80", "[::1]", "\u0661.2.3.4", "1.2.3.4 "])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


def test_one_household_is_counted_as_one() -> None:
    assert household("2001:db8:1:2:3::4") == household("2001:db8:1:2::ffff") == "2001:db8:1:2::"
    assert household("2001:db8:1:3::4") != household("2001:db8:1:2::4")
    assert household("::ffff:192.0.2.1") == household("192.0.2.1") == "192.0.2.1"
    assert household("192.0.2.2") == "192.0.2.2"
    assert household("") == ""


def test_a_setting_is_a_list_or_a_text_with_commas() -> None:
    adapter = TypeAdapter(NetworkList)
    assert adapter.validate_python("10.0.0.0/8, ::1") == ("10.0.0.0/8", "::1")
    assert adapter.validate_python(["10.0.0.0/8"]) == ("10.0.0.0/8",)
    with pytest.raises(ValidationError, match="not a network"):
        adapter.validate_python("10.0.0.1/8")
