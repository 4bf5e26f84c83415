"""A channel whose certificates may change while it is used.

A gRPC channel keeps for life the certificates that it was opened with, so it is replaced by another one when
they change. Stubs keep what they were made from; calls under way stay on the channel that they began on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import grpc

from webhook_shared.rpc.tls import CertificateFiles, Pem
from webhook_shared.tasks import ended

# Calls that were begun in the same moment as the change have passed the interceptors by then.
SETTLED_AFTER_S = 1.0
# Streams have no deadline; theirs is this, seconds. Whoever follows one begins again where it ended.
STREAM_GRACE_S = 3600.0


class RenewedChannel(grpc.aio.Channel):
    """Looks at the files when it is called, and opens another channel where they have changed.

    Args:
        files: The certificates.
        opened: Opens a channel with them.
    """

    def __init__(self, files: CertificateFiles, opened: Callable[[Pem], grpc.aio.Channel]) -> None:
        self._files = files
        self._opened = opened
        self._pem = files.current()
        self._channel = opened(self._pem)
        self._retired: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def current(self) -> grpc.aio.Channel:
        """The channel with the certificates of now."""
        pem = self._files.current()
        if pem is not self._pem:
            task = asyncio.ensure_future(_retire(self._channel))
            self._retired[task] = self._channel
            task.add_done_callback(self._retired.pop)
            self._pem, self._channel = pem, self._opened(pem)
        return self._channel

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it, with what is under way."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close all of it.

        Args:
            grace: How long calls under way may take, seconds.
        """
        retired = dict(self._retired)
        await ended(list(retired))
        await asyncio.gather(*(channel.close(grace) for channel in (self._channel, *retired.values())))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As of the channel of now."""
        return self.current().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As of the channel of now."""
        await self.current().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As of the channel of now."""
        await self.current().channel_ready()

    def unary_unary(self, *args: Any, **named: Any) -> Any:
        """What calls a method, each time over the channel of then."""
        return _Method(self, lambda channel: channel.unary_unary(*args, **named))

    def unary_stream(self, *args: Any, **named: Any) -> Any:
        """See `unary_unary`."""
        return _Method(self, lambda channel: channel.unary_stream(*args, **named))

    def stream_unary(self, *args: Any, **named: Any) -> Any:
        """See `unary_unary`."""
        return _Method(self, lambda channel: channel.stream_unary(*args, **named))

    def stream_stream(self, *args: Any, **named: Any) -> Any:
        """See `unary_unary`."""
        return _Method(self, lambda channel: channel.stream_stream(*args, **named))


class _Method:
    def __init__(self, owner: RenewedChannel, bound: Callable[[grpc.aio.Channel], Any]) -> None:
        self._owner = owner
        self._bound = bound
        self._channel: grpc.aio.Channel | None = None
        self._method: Any = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        channel = self._owner.current()
        if channel is not self._channel:
            self._channel, self._method = channel, self._bound(channel)
        return self._method(*args, **named)


async def _retire(channel: grpc.aio.Channel) -> None:
    await asyncio.sleep(SETTLED_AFTER_S)
    await channel.close(STREAM_GRACE_S)
