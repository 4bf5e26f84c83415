"""Gateways and consumers in processes of their own, to be killed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

from webhook_consumer.settings import ConsumerSettings
from webhook_consumer.wiring import running as consumer_running
from webhook_gateway.settings import GatewaySettings
from webhook_gateway.wiring import running as gateway_running

UP_WITHIN_S = 90.0

# What takes seconds to import is imported once, by the one that the others are forked from.
_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [__name__, "webhook_consumer.sqs.consumption", "webhook_gateway.publishing.sqs"]
)


class Mortal:
    """A gateway or a consumer.

    Attributes:
        ports: Where it listens: RPC, and HTTP where it is a gateway.
    """

    def __init__(self, settings: GatewaySettings | ConsumerSettings) -> None:
        told, tells = _PROCESSES.Pipe(duplex=False)
        self._told = told
        self._process = _PROCESSES.Process(target=_live, args=(settings, tells), daemon=True)
        self._process.start()
        tells.close()
        self.ports: tuple[int, ...] = ()

    async def up(self) -> Mortal:
        """Wait until it listens."""
        if not await asyncio.to_thread(self._told.poll, UP_WITHIN_S):
            raise TimeoutError("it does not come up")
        self.ports = self._told.recv()
        return self

    def kill(self) -> None:
        """With SIGKILL."""
        self._process.kill()
        self._process.join()


@contextmanager
def graveyard() -> Iterator[list[Mortal]]:
    """Whoever is in it is dead afterwards."""
    mortals: list[Mortal] = []
    try:
        yield mortals
    finally:
        for each in mortals:
            each.kill()


def _live(settings: GatewaySettings | ConsumerSettings, tells: Connection) -> None:
    asyncio.run(_serve(settings, tells))


async def _serve(settings: GatewaySettings | ConsumerSettings, tells: Connection) -> None:
    if isinstance(settings, GatewaySettings):
        async with gateway_running(settings) as gateway:
            tells.send((gateway.port, gateway.http_port))
            await asyncio.Event().wait()
    else:
        async with consumer_running(settings) as consumer:
            tells.send((consumer.port,))
            await asyncio.Event().wait()
