"""Who sent a request that proxies have passed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from webhook_shared.networks import Networks, parse_address

MOST_HOPS = 32

_HEADERS_REMEMBERED = 4096
_LONGEST_REMEMBERED = 256

FORWARDED = b"forwarded"
X_FORWARDED_FOR = b"x-forwarded-for"


class Proxies:
    """The proxies whose word is taken, and how they give it.

    A sender may write into the header whatever it likes; what the proxies add stands to the right of that.
    So the header is read from the right, and only as far as each entry was added by somebody trusted.

    Args:
        networks: Where the proxies are.
        header: What they write: X_FORWARDED_FOR or FORWARDED. The other one is not looked at, since then
            the sender alone would have written it.
    """

    def __init__(self, networks: Networks, header: bytes) -> None:
        self._networks = networks
        self._header = header
        self._host = _host_of_element if header == FORWARDED else _host
        # Most requests come from few senders, and to read a header costs ten times what to look it up does.
        self._known = lru_cache(maxsize=_HEADERS_REMEMBERED)(self._found)

    def trusts(self, peer: str) -> bool:
        """Whether this address is a proxy's."""
        address = parse_address(peer)
        return address is not None and address in self._networks

    def sender(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The address of the first one from here that is no trusted proxy.

        Where a proxy names none that can be read, its own.

        Args:
            peer: The other end of the connection.
            headers: Of the request, names in lower case, in wire order.
        """
        if not self.trusts(peer):
            return peer
        value = b",".join([value for name, value in headers if name == self._header])
        return (self._known if len(value) <= _LONGEST_REMEMBERED else self._found)(peer, value)

    def _found(self, peer: str, value: bytes) -> str:
        nearest = peer
        for entry in _from_the_right(value):
            host = self._host(entry)
            if host is None:
                return nearest
            nearest = host
            if not self.trusts(host):
                return nearest
        return nearest


def _from_the_right(value: bytes) -> Iterator[bytes]:
    # A comma inside quotes is taken for one between entries: that can only cut an entry that the sender
    # wrote, and never reaches one that a proxy added to the right of it.
    return reversed(value.rsplit(b",", MOST_HOPS)[-MOST_HOPS:]) if value else iter(())


def _host_of_element(element: bytes) -> str | None:
    """The host of an RFC 7239 element: for="[2001:db8::7]:4711"; proto=https."""
    for pair in element.split(b";"):
        name, _, value = pair.strip().partition(b"=")
        if name.lower() == b"for":
            return _host(value)
    return None


def _host(entry: bytes) -> str | None:
    """The address in "203.0.113.7", "203.0.113.7:4711", "2001:db8::7" or "[2001:db8::7]:4711"."""
    text = entry.strip().strip(b'"').decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    address = parse_address(text)
    return None if address is None else str(address)
