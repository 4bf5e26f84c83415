"""Sets of internet addresses; an IPv4 one may be written as IPv6 ("::ffff:192.0.2.7") and is the same."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_ADDRESSES_REMEMBERED = 4096
_MAPPED_BITS = 96
# One sender owns at least so much of IPv6; counted by single addresses it could be as many as it likes.
_HOUSEHOLD_BITS = 64


@lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def parse_address(text: str) -> Address | None:
    """The address that a text names, without its zone ("%eth0"); None where it names none."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


@lru_cache(maxsize=_ADDRESSES_REMEMBERED)
def household(text: str) -> str:
    """The name under which one sender's requests are counted: an IPv4 address, the /64 of an IPv6 one."""
    address = parse_address(text)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> _HOUSEHOLD_BITS << _HOUSEHOLD_BITS))
    return str(address or text)


def parse_network(text: str) -> Network:
    """The network that a text names: "192.0.2.0/24", "2001:db8::/32", or a single address.

    Raises:
        ValueError: It names none, or its address has bits beyond its prefix.
    """
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError(f"not a network: {text[:64]!r}; write 192.0.2.0/24 or 2001:db8::/32") from None
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


class Networks:
    """A set of addresses that is asked often; the answer takes as long for a thousand networks as for one.

    Args:
        networks: May overlap.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        networks = tuple(networks)
        fours = collapse_addresses(each for each in networks if isinstance(each, IPv4Network))
        sixes = collapse_addresses(each for each in networks if isinstance(each, IPv6Network))
        self._fours = _Ranges(fours)
        self._sixes = _Ranges(sixes)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Networks:
        """The set that these texts name.

        Raises:
            ValueError: One of them names no network.
        """
        return cls(parse_network(text) for text in texts)

    def __contains__(self, address: Address) -> bool:
        ranges = self._fours if isinstance(address, IPv4Address) else self._sixes
        return ranges.hold(int(address))

    def __len__(self) -> int:
        """How many networks are left when those that touch are joined."""
        return len(self._fours.first) + len(self._sixes.first)


class _Ranges:
    """Ranges of numbers that neither touch nor overlap, in order."""

    def __init__(self, networks: Iterable[Network]) -> None:
        found = [(int(each.network_address), int(each.broadcast_address)) for each in networks]
        self.first = [first for first, _ in found]
        self._last = [last for _, last in found]

    def hold(self, number: int) -> bool:
        place = bisect_right(self.first, number) - 1
        return place >= 0 and number <= self._last[place]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _checked(value: tuple[str, ...]) -> tuple[str, ...]:
    for text in value:
        parse_network(text)
    return value


NetworkList = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_checked)]
"""A setting: networks in a list, or in one text with commas between."""
