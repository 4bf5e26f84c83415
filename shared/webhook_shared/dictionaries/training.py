"""Makes a dictionary of samples: `python -m webhook_shared.dictionaries.training` is the process that does.

It takes a `Task` as JSON on standard input and gives a `Trained` on standard output. Samples come and go in
memory alone; nothing is written anywhere. A process of its own, at the lowest priority, because scrubbing
and training take seconds, and because samples come from outside.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import zstandard

from webhook_shared.dictionaries.scrubbing import Scrubber, Vocabulary, Walk, learned

TRIED_SHARE = 4
"""One sample in so many is not trained on but tried on."""
SIZES_BYTES = (112_640, 65_536, 32_768, 16_384)
CLOSE_ENOUGH = 0.985
"""A smaller dictionary that comes so near to the best one is taken: it leaves the cache to others."""
FEED = 100
"""So many times its own size is a dictionary trained on, made of as many variants of the samples."""
MOST_VARIANTS = 12
MOST_FEED_BYTES = 6 * 2**20

Rewrite = Callable[[bytes, Walk], bytes]
"""Goes through a sample of some format and gives it rewritten."""


@dataclass(frozen=True)
class Task:
    """What is to be trained.

    Attributes:
        samples: As they were compressed, not scrubbed.
        rewrite: The function that goes through one, as `module:name`.
        level: That will compress with it.
        in_use: The dictionary to beat; empty for none.
        largest_bytes: Of the new one.
    """

    samples: Sequence[bytes]
    rewrite: str
    level: int
    in_use: bytes
    largest_bytes: int


@dataclass(frozen=True)
class Trained:
    """A new dictionary, and how it does on samples that it was not trained on.

    Attributes:
        content: The dictionary; empty where the samples are too few or too alike to train one.
        ratio: How many times smaller the samples become.
        in_use_ratio: With the dictionary to beat, or none.
        plain_ratio: With none.
    """

    content: bytes
    ratio: float
    in_use_ratio: float
    plain_ratio: float


def trained(task: Task) -> Trained:
    """Train, and try on unscrubbed samples that were held back."""
    samples = list(task.samples)
    random.Random(len(samples)).shuffle(samples)  # noqa: S311  # must repeat; guards nothing
    tried, taught = samples[::TRIED_SHARE], [one for i, one in enumerate(samples) if i % TRIED_SHARE]
    rewrite = _rewrite(task.rewrite)
    vocabulary = learned(taught, rewrite)
    best, best_ratio = b"", 0.0
    fed = scrubbed(taught, rewrite, vocabulary, task.largest_bytes * FEED)
    for size in SIZES_BYTES:
        content = dictionary_of(fed, size) if size <= task.largest_bytes else b""
        if not content:
            continue
        made = ratio(tried, content, task.level)
        if made > best_ratio or made >= best_ratio * CLOSE_ENOUGH:
            best, best_ratio = content, max(made, best_ratio)
    return Trained(
        best,
        ratio(tried, best, task.level) if best else 0.0,
        ratio(tried, task.in_use, task.level),
        ratio(tried, b"", task.level),
    )


def scrubbed(
    samples: Sequence[bytes], rewrite: Rewrite, vocabulary: Vocabulary, feed_bytes: int
) -> list[bytes]:
    """The samples with nothing of anybody's in them, each in several variants."""
    total = max(sum(map(len, samples)), 1)
    variants = min(max(min(feed_bytes, MOST_FEED_BYTES) // total, 1), MOST_VARIANTS)
    return [
        rewrite(sample, Scrubber(vocabulary, f"{number}/{variant}"))
        for variant in range(variants)
        for number, sample in enumerate(samples)
    ]


def dictionary_of(samples: Sequence[bytes], size_bytes: int) -> bytes:
    """A dictionary of at most that size; empty where the samples are too few for one."""
    try:
        made: bytes = zstandard.train_dictionary(size_bytes, list(samples), level=3).as_bytes()
    except zstandard.ZstdError:
        return b""
    return made


def ratio(samples: Sequence[bytes], dictionary: bytes, level: int) -> float:
    """Bytes before over bytes after, all samples together; with no dictionary where it is empty."""
    data = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    compressor = zstandard.ZstdCompressor(
        level=level, dict_data=data, write_dict_id=False, write_checksum=False
    )
    after = sum(len(compressor.compress(sample)) for sample in samples)
    return sum(map(len, samples)) / after if after else 0.0


def _rewrite(name: str) -> Rewrite:
    module, _, function = name.partition(":")
    found: Rewrite = getattr(importlib.import_module(module), function)
    return found


def encoded(one: Task | Trained) -> bytes:
    """As it goes from process to process."""
    return json.dumps(asdict(one), default=lambda part: base64.b64encode(part).decode()).encode()


def task_of(encoded: bytes) -> Task:
    """What `encoded` made of a task."""
    read = json.loads(encoded)
    samples = [base64.b64decode(one) for one in read.pop("samples")]
    return Task(samples=samples, in_use=base64.b64decode(read.pop("in_use")), **read)


def trained_of(encoded: bytes) -> Trained:
    """What `encoded` made of a result."""
    read = json.loads(encoded)
    return Trained(content=base64.b64decode(read.pop("content")), **read)


if __name__ == "__main__":
    os.nice(19)
    sys.stdout.buffer.write(encoded(trained(task_of(sys.stdin.buffer.read()))))
