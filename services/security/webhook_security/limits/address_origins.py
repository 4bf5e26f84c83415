"""Where lists of addresses come from: the configuration, a file, a page; the last good reading is kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog
from webhook_shared.networks import Networks
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError

from webhook_security import metrics

log = structlog.get_logger()

FILE_REREAD_S = 5.0
PAGE_TIMEOUT_S = 10.0
LARGEST_LIST_BYTES = 4 * 2**20
RETRY_BASE_S = 1.0
RETRY_CAP_S = 60.0

_KEPT_KEY = "addresses"
_REDIS_TROUBLE: tuple[type[BaseException], ...] = (RedisError, *REDIS_TROUBLE)


class Unreadable(Exception):
    """A list can't be had, or is none; the text says why and repeats nothing of it."""


_NOT_RECALLED: tuple[type[BaseException], ...] = (Unreadable, *_REDIS_TROUBLE)


class Origin:
    """A file or a page with networks in it: one to a line, or JSON and a pointer to them.

    Args:
        text: "file:PATH", "https://HOST/PATH", each with "#/pointer" where it is a JSON document.
        every_s: How often to look again, seconds.
        client: Where the last good reading is kept for the next start.
    """

    def __init__(self, text: str, every_s: float, client: Client) -> None:
        self.text = text
        self.networks: Networks | None = None
        self.every_s = every_s
        self._client = client
        self._place, _, self._pointer = text.partition("#")
        self._digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._content = b""
        self._watchers: list[Callable[[], None]] = []
        self._loaded = metrics.address_list_loaded.labels(self._place)
        self._backoff = Backoff(base_s=min(RETRY_BASE_S, every_s), cap_s=min(RETRY_CAP_S, every_s))

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever the networks are different ones."""
        self._watchers.append(changed)

    async def keep(self) -> None:
        """Look again and again, for ever."""
        while True:
            if await self.refresh():
                self._backoff.reset()
                await asyncio.sleep(self.every_s)
            else:
                await self._backoff.wait()

    async def refresh(self) -> bool:
        """Look once; False where there is nothing good to be had now."""
        try:
            content = await self._read()
            if content != self._content:
                self._take(content)
                await self._remember(content)
        except Unreadable as error:
            log.warning(
                "addresses.unreadable", origin=self._place, why=str(error), kept=self.networks is not None
            )
            if self.networks is None:
                await self._recall()
            return False
        self._loaded.set_to_current_time()
        return True

    def _take(self, content: bytes) -> None:
        networks = read_networks(content, self._pointer)
        self._content, self.networks = content, networks
        for changed in self._watchers:
            changed()
        log.info("addresses.read", origin=self._place, networks=len(networks))

    async def _read(self) -> bytes:
        if self._place.startswith("file:"):
            return await asyncio.to_thread(_read_file, Path(self._place.removeprefix("file:")))
        return await _read_page(self._place)

    async def _remember(self, content: bytes) -> None:
        """Keep it for a start at which the page is away."""
        if self._place.startswith("file:"):
            return
        try:
            await self._client.set(f"{_KEPT_KEY}:{self._digest}", content)
        except _REDIS_TROUBLE as error:
            log.warning("addresses.not_kept", origin=self._place, error=type(error).__name__)

    async def _recall(self) -> None:
        try:
            content = await self._client.get(f"{_KEPT_KEY}:{self._digest}")
            if isinstance(content, bytes):
                self._take(content)
        except _NOT_RECALLED as error:
            log.warning("addresses.not_recalled", origin=self._place, error=type(error).__name__)


def read_networks(content: bytes, pointer: str = "") -> Networks:
    """The networks in a document.

    Args:
        content: JSON, or a network to a line with comments after "#".
        pointer: Where in the JSON (RFC 6901); a step "*" stands for every member.

    Raises:
        Unreadable: It holds none, or something else beside them.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        if pointer:
            raise Unreadable("is not JSON") from None
        document = _lines(content)
    found = list(_texts(list(_selected(document, _steps(pointer)))))
    if not found:
        raise Unreadable("holds no network at that place")
    try:
        return Networks.parse(found)
    except ValueError:
        raise Unreadable("holds something that is no network") from None


def _lines(content: bytes) -> list[str]:
    lines = content.decode("latin-1").splitlines()
    return [entry for line in lines if (entry := line.partition("#")[0].strip())]


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _selected(node: Any, steps: Sequence[str]) -> Iterator[Any]:
    if not steps:
        yield node
        return
    step, rest = steps[0], steps[1:]
    if isinstance(node, dict):
        inner = list(node.values()) if step == "*" else [node[step]] if step in node else []
    elif isinstance(node, list) and step == "*":
        inner = node
    elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
        inner = [node[int(step)]]
    else:
        inner = []
    for each in inner:
        yield from _selected(each, rest)


def _texts(found: list[Any]) -> Iterator[str]:
    for each in found:
        if isinstance(each, list):
            yield from _texts(each)
        elif isinstance(each, str):
            yield each
        else:
            raise Unreadable("holds something that is no network")


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_LIST_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"can't be read ({type(error).__name__})") from None
    return _bounded(content)


async def _read_page(url: str) -> bytes:
    # Takes 0.1 s to import, and most processes never ask for a page.
    import httpx  # noqa: PLC0415

    content = b""
    try:
        async with (
            asyncio.timeout(PAGE_TIMEOUT_S),
            httpx.AsyncClient(timeout=PAGE_TIMEOUT_S) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise Unreadable(f"answers {response.status_code}")
            async for part in response.aiter_bytes():
                content = _bounded(content + part)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        raise Unreadable(f"can't be read ({type(error).__name__})") from None
    return content


def _bounded(content: bytes) -> bytes:
    if len(content) > LARGEST_LIST_BYTES:
        raise Unreadable(f"is larger than {LARGEST_LIST_BYTES} bytes")
    return content
