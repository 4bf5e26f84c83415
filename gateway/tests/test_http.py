"""The HTTP edge over raw sockets: limits, order, abuse."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

LIVE = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/webhooks",
        "/webhooks/",
        "/webhooks/nobody",
        "/webhooks/github/",
        "/webhooks//github",
        "/webhooks/GitHub",
        "/webhooks/%67ithub",
        "/webhooks/%2e%2e%2fadmin",
        "/webhooks/../health/webhook",
        "/webhooks/git%00hub",
        "/webhooks/git%ffhub",
        "/webhooks/github%3fa",
        "/webhooks/-github",
        "/webhooks/" + "a" * 64,
        "/webhooks/" + "a" * 4096,
        "/webhooks/acme/github/more",
        "/webhooks/nobody/github",
        "http://hooks.example/webhooks/github",
        "/health/webhook/",
        "/metrics",
    ],
)
async def test_everything_that_is_no_source_is_the_same_404(house, kit, path):
    reply = await house.ask(kit.post(path=path))
    assert (reply.status, reply.body) == (404, b'{"error":"not found"}')
    assert house.judge.seen == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_a_wrong_method_is_told_the_right_one(house, kit, method):
    reply = await house.ask(kit.post(method=method))
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"


async def test_a_head_request_gets_no_body(house, kit):
    sender = await house.sender()
    await sender.send(kit.post(b"", method="HEAD", length=False))
    assert (await sender.reply(bodiless=True)).status == 405
    assert (await sender.ask(LIVE)).status == 200


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"content_type": "text/plain"}, 415),
        ({"content_type": ""}, 415),
        ({"content_type": "application/json; charset=utf-8"}, 202),
        ({"content_type": "Application/JSON"}, 202),
        ({"extra": "Content-Encoding: gzip\r\n"}, 415),
        ({"extra": "Content-Encoding: identity\r\n"}, 202),
        ({"extra": "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"}, 400),
        ({"extra": "Content-Type: text/plain\r\n"}, 400),
        ({"extra": "Host: another.example\r\n"}, 400),
        ({"extra": "Content-Length: 7\r\n"}, 400),
        ({"extra": "Content-Length: 9\r\n"}, 400),
        ({"extra": "Transfer-Encoding: chunked\r\n"}, 400),
        ({"length": False, "extra": "Transfer-Encoding: gzip, chunked\r\n"}, 400),
        ({"length": False, "extra": "Transfer-Encoding: identity\r\n"}, 400),
        ({"length": False, "extra": "Content-Length: -1\r\n"}, 400),
        ({"length": False, "extra": "Content-Length: 99999999999999999999999\r\n"}, 400),
        ({"length": False, "extra": f"Content-Length: {'0' * 40}7\r\n"}, 413),
        ({"extra": "Bad Header: x\r\n"}, 400),
        ({"extra": "X-Folded: a\r\n b\r\n"}, 400),
        ({"extra": "X-Nul: a\x00b\r\n"}, 400),
        ({"extra": "".join(f"X-{i}: y\r\n" for i in range(61))}, 431),
        ({"extra": "".join(f"X-{i}: y\r\n" for i in range(59))}, 202),
        ({"extra": f"X-Large: {'y' * 33_000}\r\n"}, 431),
        ({"extra": f"X-Large: {'y' * 30_000}\r\n"}, 202),
    ],
)
async def test_heads(house, kit, how, status):
    assert (await house.ask(kit.post(**how))).status == status


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /webhooks/github HTTP/9.9\r\n\r\n",
        b"hello\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_bad_request(house, junk):
    sender = await house.sender()
    assert (await sender.ask(junk)).status == 400
    assert await sender.closed() == b""


async def test_a_head_that_never_ends_is_too_large(house):
    sender = await house.sender()
    await sender.send(b"POST /webhooks/github HTTP/1.1\r\nX-Large: ")
    for _ in range(9):
        await sender.send(b"y" * 4096)
    assert (await sender.reply()).status == 431


async def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(house, kit):
    sender = await house.sender()
    reply = await sender.ask(
        kit.post(b"", length=False, extra=f"Content-Length: {kit.limit_bytes + 1}\r\n", signed="x")
    )
    assert reply.status == 413
    assert reply.headers["connection"] == "close"


async def test_a_body_of_exactly_the_limit_is_taken(house, kit):
    body = b'"' + b"x" * (kit.limit_bytes - 2) + b'"'
    assert (await house.ask(kit.post(body))).status == 202
    assert (await house.ask(kit.chunked(body, 10_000, delivery="d-2"))).status == 202
    assert {len(event[b"sealed"]) for event in await house.events()} == {len(b"sealed:") + len(body)}


async def test_a_chunked_body_over_the_limit_is_refused_while_it_streams(house, kit):
    sender = await house.sender()
    await sender.send(kit.post(b"", length=False, signed="x", extra="Transfer-Encoding: chunked\r\n"))
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(5):
        await sender.send(chunk)
    reply = await sender.reply()
    assert reply.status == 413
    assert reply.headers["connection"] == "close"
    assert house.judge.seen == []


async def test_chunks_may_not_cost_more_than_they_hold(house, kit):
    sender = await house.sender()
    await sender.send(kit.post(b"", length=False, signed="x", extra="Transfer-Encoding: chunked\r\n"))
    await sender.send(b"1;" + b"x" * 200_000 + b"\r\ny\r\n")
    assert (await sender.reply()).status == 413


async def test_tiny_chunks_are_taken(house, kit):
    body = b'"' + b"z" * 3000 + b'"'
    assert (await house.ask(kit.chunked(body, 1))).status == 202
    assert (await house.events())[0][b"sealed"] == b"sealed:" + body


async def test_trailers_are_no_headers(house, kit):
    trailer = f"X-Cause: 1\r\nX-Signature: {'0' * 64}\r\n"
    assert (await house.ask(kit.chunked(b'{"a":1}', 3, trailer=trailer))).status == 202
    assert "x-cause" not in [header.name for header in house.judge.seen[0].headers]


async def test_a_refused_small_body_leaves_the_connection_open(house, kit):
    sender = await house.sender()
    assert (await sender.ask(kit.post(b"x" * 5000, path="/nowhere"))).status == 404
    assert (await sender.ask(kit.post())).status == 202


async def test_a_refused_large_body_does_not_cost_the_sender_its_answer(house, kit):
    sender = await house.sender()
    await sender.send(kit.post(b"x" * 3_000_000, path="/nowhere"))
    assert (await sender.reply()).status == 404
    assert await sender.closed() == b""


async def test_pipelined_requests_are_answered_in_order(house, kit):
    house.judge.delay_s = 0.02
    sender = await house.sender()
    requests = [kit.post(delivery=f"p{i}") for i in range(5)]
    await sender.send(b"".join([requests[0], LIVE, *requests[1:], kit.post(path="/nowhere")]))
    statuses = [(await sender.reply()).status for _ in range(7)]
    assert statuses == [202, 200, 202, 202, 202, 202, 404]
    assert len({event[b"id"] for event in await house.events()}) == 5


async def test_a_pipelined_request_that_is_broken_does_not_harm_the_one_before(house, kit):
    house.judge.delay_s = 0.02
    sender = await house.sender()
    await sender.send(kit.post() + b"BROKEN\r\n\r\n")
    assert (await sender.reply()).status == 202
    assert (await sender.reply()).status == 400
    assert await sender.closed() == b""


async def test_a_flood_of_pipelined_requests_is_cut_off(house, kit):
    house.judge.delay_s = 0.05
    sender = await house.sender()
    await sender.send(kit.post() + LIVE * 500)
    answers = await sender.closed()
    assert answers.count(b"HTTP/1.1 202") == 1
    assert 10 < answers.count(b"HTTP/1.1 200") < 100


async def test_the_sender_may_ask_for_the_end(house, kit):
    sender = await house.sender()
    reply = await sender.ask(kit.post(extra="Connection: close\r\n"))
    assert (reply.status, reply.headers["connection"]) == (202, "close")
    assert await sender.closed() == b""


async def test_bytes_after_the_end_are_ignored(house, kit):
    sender = await house.sender()
    await sender.send(kit.post(extra="Connection: close\r\n") + kit.post(delivery="d-2"))
    assert (await sender.reply()).status == 202
    assert await sender.closed() == b""
    assert len(await house.events()) == 1


async def test_http_1_0_is_answered_and_closed(house):
    sender = await house.sender()
    assert (await sender.ask(b"GET /health/live HTTP/1.0\r\n\r\n")).status == 200
    assert await sender.closed() == b""


async def test_an_upgrade_is_not_followed(house):
    sender = await house.sender()
    upgrade = b"GET /health/live HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert (await sender.ask(upgrade + b"more")).status == 200
    assert await sender.closed() == b""


async def test_the_sender_is_told_to_continue_if_the_head_is_good(house, kit):
    sender = await house.sender()
    body = b'{"a":1}'
    request = kit.post(body, extra="Expect: 100-continue\r\n")
    await sender.send(request[: -len(body)])
    assert (await sender.reply(bodiless=True)).status == 100
    assert (await sender.ask(body)).status == 202


async def test_the_sender_is_not_told_to_continue_if_it_is_not(house, kit):
    sender = await house.sender()
    extra = "Expect: 100-continue\r\nContent-Length: 9\r\n"
    await sender.send(kit.post(b"", path="/nowhere", extra=extra, length=False))
    assert (await sender.reply()).status == 404


async def test_a_slow_body_is_given_up(house_with, kit):
    async with house_with(body_timeout=timedelta(milliseconds=300)) as house:
        sender = await house.sender()
        await sender.send(kit.post()[:-3])
        reply = await sender.reply()
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert await sender.closed() == b""
        assert house.judge.seen == []


async def test_a_body_that_trickles_is_given_up_too(house_with, kit):
    async with house_with(body_timeout=timedelta(milliseconds=400)) as house:
        sender = await house.sender()
        await sender.send(kit.post(b"x" * 1000)[:-1000])
        reply = asyncio.ensure_future(sender.reply())
        for _ in range(100):
            await sender.send(b"x")
            await asyncio.sleep(0.02)
            if reply.done():
                break
        assert (await reply).status == 408


async def test_slow_headers_are_given_up(house_with):
    async with house_with(header_timeout=timedelta(milliseconds=300)) as house:
        sender, silent = await house.sender(), await house.sender()
        await sender.send(b"POST /webhooks/github HTTP/1.1\r\nHost:")
        assert (await sender.reply()).status == 408
        assert await silent.closed() == b""


async def test_the_head_after_a_pipelined_request_has_its_own_deadline(house_with):
    async with house_with(header_timeout=timedelta(milliseconds=300)) as house:
        sender = await house.sender()
        await sender.send(LIVE + b"POST /webhooks/github HTTP/1.1\r\nHost:")
        assert (await sender.reply()).status == 200
        assert (await sender.reply()).status == 408


async def test_an_idle_connection_is_closed(house_with, kit):
    async with house_with(keep_alive_timeout=timedelta(milliseconds=300)) as house:
        sender = await house.sender()
        assert (await sender.ask(kit.post())).status == 202
        assert await sender.closed() == b""


async def test_a_sender_that_leaves_after_the_body_has_still_delivered(house, kit):
    house.judge.delay_s = 0.1
    sender = await house.sender()
    await sender.send(kit.post())
    async with asyncio.timeout(5):
        while not house.judge.seen:
            await asyncio.sleep(0.005)
    sender.writer.transport.abort()
    async with asyncio.timeout(5):
        while not await house.events():
            await asyncio.sleep(0.01)
    assert (await house.ask(kit.post())).json["duplicate"] is True


async def test_a_sender_that_closes_its_side_still_reads_the_answer(house, kit):
    house.judge.delay_s = 0.1
    sender = await house.sender()
    await sender.send(kit.post())
    sender.writer.write_eof()
    assert (await sender.reply()).status == 202
    assert await sender.closed(1) == b""


async def test_a_sender_that_does_not_read_is_read_no_further(house):
    sender = await house.sender()
    sender.reader._transport.pause_reading()
    sent = 0
    try:
        async with asyncio.timeout(3):
            while sent < 64 * 2**20:
                await sender.send(LIVE * 16)
                sent += len(LIVE) * 16
    except TimeoutError:
        pass
    assert sent < 64 * 2**20


async def test_deliveries_under_way_are_finished_before_the_end(house_with, kit):
    async with house_with() as house:
        house.judge.delay_s = 0.3
        sender, idle = await house.sender(), await house.sender()
        await idle.ask(LIVE)
        await sender.send(kit.post())
        while not house.judge.seen:
            await asyncio.sleep(0.005)
    reply = await sender.reply()
    assert (reply.status, reply.headers["connection"]) == (202, "close")
    assert await idle.closed() == b""
    assert len(await house.events()) == 1
