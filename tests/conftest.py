"""One whole system for all tests that do no harm to it; those that do start their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.collector import Collector, collecting
from tests.system import House, running_house


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the shared system sends its traces."""
    with collecting() as listening:
        yield listening


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> AsyncIterator[House]:
    """The shared system; every webhook is traced."""
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_TRACES_SAMPLER_ARG": "1.0",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    async with running_house(tmp_path_factory.mktemp("house"), environ=environ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def own_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A system of one module's own, to break."""
    directory: Path = tmp_path_factory.mktemp("own")
    async with running_house(directory, environ={}) as running:
        yield running
