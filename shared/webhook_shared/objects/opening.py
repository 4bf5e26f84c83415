"""The store of objects that the settings name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection, ObjectStore


@asynccontextmanager
async def opened(settings: ObjectStorageSection) -> AsyncIterator[ObjectStore]:
    """A bucket where one is named, else a directory. Nothing is sent or made before the first call."""
    if not settings.bucket:
        yield DirectoryObjectStore(settings.directory)
        return
    # Only with a bucket: the driver costs a process that has none 40 MB and half a second.
    from webhook_shared.objects.s3 import bucket  # noqa: PLC0415  # see above

    async with bucket(settings) as store:
        yield store
