"""What becomes of the work while its server, its connection or its data go away."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from webhook_consumer.entry import DONE, Retry
from webhook_consumer.metrics import stream_lost
from webhook_shared.settings import RedisSection

from conftest import on_cluster

CHUNK = 65_536


class Wire:
    """A TCP proxy before the server, to cut connections where it hurts."""

    def __init__(self) -> None:
        self.port = 0
        self.swallowing = False
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def settings(self) -> RedisSection:
        return RedisSection(addresses=(f"127.0.0.1:{self.port}",))

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def to(self, settings: RedisSection):
        target = int(settings.addresses[0].rpartition(":")[2])

        async def accept(reader, writer):
            upstream, upwriter = await asyncio.open_connection("127.0.0.1", target)
            self._writers |= {writer, upwriter}
            await asyncio.gather(
                self._pump(reader, upwriter, is_reply=False), self._pump(upstream, writer, is_reply=True)
            )
            self._writers -= {writer, upwriter}

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.sleep(0)

    async def _pump(self, reader, writer, *, is_reply) -> None:
        try:
            while data := await reader.read(CHUNK):
                # A reply with entries in it never arrives: delivered, as the server sees it.
                if is_reply and self.swallowing and b"event-" in data:
                    self.swallowing = False
                    self.cut()
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.mark.skipif(on_cluster(), reason="a Cluster tells where it is, and nothing stands between")
async def test_what_was_delivered_into_a_connection_that_broke_is_found(lab):
    handler = lab.handler()
    async with Wire().to(lab.settings) as wire, lab.worker(handler, settings=wire.settings) as queue:
        await lab.until(lambda: bool(queue.name))
        wire.swallowing = True
        published = await lab.publish(50)
        await lab.until(lab.is_empty)
    assert not wire.swallowing
    assert sorted(handler.seen) == sorted(published)


async def test_connections_that_break_again_and_again_lose_nothing(lab):
    handler = lab.handler()
    async with Wire().to(lab.settings) as wire, lab.worker(handler, settings=wire.settings):
        published = []
        for round_ in range(10):
            published += await lab.publish(40, start=40 * round_)
            wire.cut()
            await asyncio.sleep(0.02)
        await lab.until(lab.is_empty)
    assert set(handler.seen) == set(published)


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "DEL webhook-events", "XGROUP DESTROY webhook-events webhook-processors"]
)
async def test_a_lost_stream_or_group_is_made_anew_while_running(lab, command):
    before = stream_lost.labels("events")._value.get()
    handler = lab.handler()
    async with lab.worker(handler):
        await lab.publish(5)
        await lab.until(lambda: len(handler.seen) == 5)
        await lab.until(lab.is_empty)
        await lab.redis.execute_command(*command.split())
        later = await lab.publish(5, start=5)
        await lab.until(lambda: set(later) <= set(handler.seen))
        await lab.until(lab.is_empty)
    assert stream_lost.labels("events")._value.get() > before


async def test_a_group_destroyed_under_load_loses_nothing(lab):
    async def slowly(entry):
        await asyncio.sleep(0.001)
        return DONE

    handler = lab.handler(slowly)
    async with lab.worker(handler) as queue:
        await lab.until(lambda: bool(queue.name))
        published = []
        for round_ in range(5):
            published += await lab.publish(100, start=100 * round_)
            await lab.redis.execute_command("XGROUP", "DESTROY", "webhook-events", "webhook-processors")
        await lab.until(lab.is_empty)
    assert set(handler.seen) == set(published)


async def test_forgotten_scripts_are_loaded_again(lab):
    handler = lab.handler(lambda entry: DONE if entry.failures else Retry("once more"))
    async with lab.worker(handler):
        for round_ in range(5):
            await lab.publish(20, start=20 * round_)
            await lab.redis.script_flush()
        await lab.until(lab.is_empty)
    assert len(set(handler.seen)) == 100
    assert await lab.dead() == []


async def test_a_server_that_is_killed_and_comes_back_is_read_on(own_lab):
    lab = own_lab
    await lab.redis.config_set("appendfsync", "always")
    handler = lab.handler()
    async with lab.worker(handler) as queue:
        await lab.until(lambda: bool(queue.name))
        published = []
        for round_ in range(3):
            published += await lab.publish(100, start=100 * round_)
            lab.server.kill()
            await asyncio.sleep(0.1)
            lab.server.start()
            await lab.server.answering()
        await lab.until(lab.is_empty, within_s=30)
    assert set(handler.seen) == set(published)


async def test_a_worker_waits_for_a_server_that_is_not_there_yet(own_lab):
    lab = own_lab
    published = await lab.publish(3)
    lab.server.stop()
    handler = lab.handler()
    async with lab.worker(handler):
        await asyncio.sleep(0.3)
        lab.server.start()
        await lab.server.answering()
        await lab.until(lab.is_empty)
    assert handler.seen == published


async def test_an_entry_whose_body_was_trimmed_while_in_flight_is_counted_and_gone(lab):
    before = stream_lost.labels("events")._value.get()
    await lab.publish(4)
    async with lab.queue() as dead:
        await dead.join()
        entries = await dead.read(10)
        await lab.redis.xdel(lab.lane.stream, entries[0].id, entries[2].id)
        await dead.leave()
    handler = lab.handler()
    async with lab.worker(handler):
        await lab.until(lab.is_empty)
    assert handler.seen == ["event-1", "event-3"]
    assert stream_lost.labels("events")._value.get() == before + 2
