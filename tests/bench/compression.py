"""What dictionaries gain on events and on packed contexts: `python -m tests.bench.compression`.

GitHub's published examples are split in two. Dictionaries are made of one half, scrubbed; what is measured
comes from the other half, with names, ids, hashes, dates and texts made up from other seeds. So no example
and no made-up value is on both sides; what both share is GitHub's API.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import zstandard
from pydantic import SecretStr
from webhook.context.v1.context_service_pb2 import Append
from webhook.context.v1.pack_pb2 import Pack, PackedEvent
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_context.packs.packing import Packer
from webhook_context.packs.samples import rewritten
from webhook_shared import redis as store
from webhook_shared.dictionaries.store import Dictionaries, Entry
from webhook_shared.dictionaries.training import Task, dictionary_of, trained
from webhook_shared.sealing.envelope import Keyring

from conftest import RedisServer
from tests.bench.report import report

TOOLS = Path("services/security/tools/train_dictionary.py")
MASTER = SecretStr("a-master-key-for-measuring-only-0123456789")
SIZES_KB = (0, 16, 32, 64, 112)
LEVELS = (1, 3)
ROUNDS = 7
WARM_LEVEL = 6
WARM_DICTIONARY_BYTES = 65_536
EVENTS_PER_CONTEXT = (1, 3, 10)
MOST_CONTEXTS = 96
TEACHING_CONTEXTS = 300


def training() -> ModuleType:
    """The tool that trains what is shipped, as a module."""
    spec = importlib.util.spec_from_file_location("train_dictionary", TOOLS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def events_table(taught: Sequence[bytes], tried: Sequence[bytes]) -> list[dict[str, float]]:
    """Per size and level: ratio, and CPU microseconds of one event."""
    cases = []
    for size_kb in SIZES_KB:
        content = dictionary_of(taught, size_kb * 1000) if size_kb else b""
        cases += [(size_kb, level, *_codec(content, level)) for level in LEVELS]
    frames = [[compress(one) for one in tried] for _, _, compress, _ in cases]
    best = [(float("inf"), float("inf"))] * len(cases)
    # In turns, so that whatever else the machine does meets all of them.
    for _ in range(ROUNDS):
        for at, (_, _, compress, decompress) in enumerate(cases):
            made, back = _microseconds(compress, tried), _microseconds(decompress, frames[at])
            best[at] = (min(best[at][0], made), min(best[at][1], back))
    before = sum(map(len, tried))
    return [
        {
            "dictionary_kb": size_kb,
            "level": level,
            "ratio": round(before / sum(map(len, frames[at])), 2),
            "compress_us": round(best[at][0], 1),
            "decompress_us": round(best[at][1], 1),
        }
        for at, (size_kb, level, _, _) in enumerate(cases)
    ]


def _codec(content: bytes, level: int) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    data = zstandard.ZstdCompressionDict(content) if content else None
    if data is not None:
        data.precompute_compress(level=level)
    compressor = zstandard.ZstdCompressor(
        level=level, dict_data=data, write_checksum=False, write_dict_id=False
    )
    reading = zstandard.ZstdCompressionDict(content) if content else None
    return compressor.compress, zstandard.ZstdDecompressor(dict_data=reading).decompress


def _microseconds(work: Callable[[bytes], Any], pieces: Sequence[bytes]) -> float:
    began = time.process_time()
    for one in pieces:
        work(one)
    return (time.process_time() - began) / len(pieces) * 1e6


def packs(events: Sequence[bytes], per_context: int, most: int) -> list[Pack]:
    """Contexts of so many events each, as the context store packs them."""
    made = []
    for number in range(min(len(events) // per_context, most)):
        context_id = f"github:{number:x}/{number:x}:issue:{number}"
        packed = []
        for sealed in events[number * per_context : (number + 1) * per_context]:
            event = WebhookEvent.FromString(sealed)
            said = Append(tenant="default", tool="github", kind="issue", context_id=context_id)
            said.event.event_id, said.event.type = event.id, event.type
            said.event.received_time.CopyFrom(event.received_time)
            packed.append(
                PackedEvent(event_id=event.id, record=said.SerializeToString(), payload=event.payload)
            )
        facts = orjson.dumps({"format": 1, "words": {"state": ["open", number, packed[-1].event_id]}})
        where: Any = {"tenant": "default", "context_id": context_id, "tool": "github", "kind": "issue"}
        made.append(Pack(**where, version=per_context, generation=1, events=packed, facts_json=facts))
    return made


async def warm_table(of: Sequence[Any], tool: ModuleType) -> list[dict[str, float]]:
    """Payload bytes over the bytes of the sealed pack: without, with a shipped-like, with a trained one."""
    known = tool.vocabulary(of[::2])
    shipped = dictionary_of(tool.scrubbed("github", of[::2], known, "train", 24), WARM_DICTIONARY_BYTES)
    tried = tool.scrubbed("github", of[1::2], known, "measure", 6)
    teaching = tool.scrubbed("github", of, tool.vocabulary(of), "traffic", 8)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory))
        server.start()
        await server.answering()
        client = store.connect(server.settings)
        for per_context in EVENTS_PER_CONTEXT:
            contexts = packs(tried, per_context, MOST_CONTEXTS)
            samples = [one.SerializeToString() for one in packs(teaching, per_context, TEACHING_CONTEXTS)]
            task = Task(
                [one for one in samples if len(one) <= 65_536],
                f"{rewritten.__module__}:{rewritten.__name__}",
                WARM_LEVEL,
                b"",
                WARM_DICTIONARY_BYTES,
            )
            taught = await asyncio.to_thread(trained, task)
            row: dict[str, float] = {"events": per_context}
            for name, content in (("none", b""), ("shipped", shipped), ("trained", taught.content)):
                row[name] = round(await _packed_ratio(client, contexts, content), 2)
            rows.append(row)
        await client.aclose()
        server.kill()
    return rows


async def _packed_ratio(client: store.Client, contexts: Sequence[Pack], content: bytes) -> float:
    await client.flushall()
    # A name that nothing is shipped for, so that there is none where none is given.
    for one in contexts:
        one.tool = "measured"
    keyring = Keyring(client, MASTER, Dictionaries(client, "contexts", spread_s=0))
    await keyring.prepare(["default"])
    if content:
        entry = Entry("contexts", "measured", 0, "", 0, 0, len(content), 0, 0.0, 0.0)
        assert await keyring.dictionaries.adopt("default", content, entry, None, keyring)
    packer = Packer(keyring, "zstd", WARM_LEVEL)
    before = sum(len(event.payload) for one in contexts for event in one.events)
    return before / sum(len(packer.pack(one).sealed) for one in contexts)


def main() -> None:
    """Measure, and print."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    tool = training()
    of = tool.originals("github")
    known = tool.vocabulary(of[::2])
    taught = tool.scrubbed("github", of[::2], known, "train", 24)
    tried = tool.scrubbed("github", of[1::2], known, "measure", 2)
    events = events_table(taught, tried)
    for row in events:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
    warm = asyncio.run(warm_table(of, tool))
    for row in warm:
        print("  ".join(f"{name} {value:g}" for name, value in row.items()), flush=True)
    report(
        "compression",
        {
            "warm_ratio": statistics.fmean(row["shipped"] for row in warm),
            "warm_ratio_trained": statistics.fmean(row["trained"] for row in warm),
            "warm_ratio_plain": statistics.fmean(row["none"] for row in warm),
            "event_ratio": next(
                row["ratio"] for row in events if row["dictionary_kb"] == 64 and row["level"] == 1
            ),
        },
        settings={"warm_level": WARM_LEVEL, "warm_dictionary_bytes": WARM_DICTIONARY_BYTES},
        payloads={
            "package": "@octokit/webhooks-examples",
            "examples": len(of),
            "median_bytes": int(statistics.median(map(len, tried))),
            "varied": "names, texts, ids, hashes, dates; other examples than the dictionaries were made of",
        },
        rounds=[*events, *warm],
    )


if __name__ == "__main__":
    main()
