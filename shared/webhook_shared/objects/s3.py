"""A bucket of objects: AWS S3, or whatever speaks its protocol."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, TypeVar

import aioboto3
import aiohttp
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from webhook_shared.objects.protocol import (
    DEADLINE_S,
    MOST_NAMES,
    ObjectMissing,
    ObjectStorageSection,
    ObjectTrouble,
)

log = structlog.get_logger()

PART_BYTES = 8 * 2**20
MULTIPART_FROM_BYTES = 2 * PART_BYTES
ATTEMPTS = 3
"""Of ours, for what the driver does not repeat: a body that breaks off, a conflict of two writes."""
DRIVER_ATTEMPTS = 4
CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 15.0
CONNECTIONS = 32

_TROUBLE = (ClientError, BotoCoreError, aiohttp.ClientError, TimeoutError, OSError)
_EXISTS = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_MODIFIED)
# By servers that know no versions, and to a key that may not ask.
_NOT_TOLD = (HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)

T = TypeVar("T")


class S3ObjectStore:
    """Each object is an object.

    A write says that it must not replace anything, where the server understands that. Where it is told
    that the object is there already, an attempt before had its effect and only its answer was lost: names
    are made once. Whoever writes reads back anyway.

    In a bucket that keeps versions an object is deleted with all of its versions: to hide it would keep
    what somebody has asked us to forget.
    """

    def __init__(self, client: Any, settings: ObjectStorageSection) -> None:
        self._client = client
        self._bucket = settings.bucket
        self._checksums = settings.checksum_mode == "when_supported"
        self._conditional = settings.conditional_writes
        self._versioned: bool | None = None

    async def put(self, name: str, content: bytes) -> None:
        """See `ObjectStore`."""
        write = self._put_in_parts if len(content) > MULTIPART_FROM_BYTES else self._put_whole
        await _with_patience(lambda: self._put_once(write, name, content))

    async def get(self, name: str) -> bytes:
        """See `ObjectStore`."""
        return await _with_patience(lambda: self._get(name))

    async def part(self, name: str, start: int, length: int) -> bytes:
        """See `ObjectStore`."""
        return await _with_patience(lambda: self._get(name, start, length))

    async def names(self, prefix: str, *, after: str = "", most: int = MOST_NAMES) -> list[str]:
        """See `ObjectStore`."""
        return await _with_patience(lambda: self._names(prefix, after, most))

    async def delete(self, name: str) -> None:
        """See `ObjectStore`."""
        await _with_patience(lambda: self._delete(name))

    async def _put_once(
        self, write: Callable[[str, bytes], Awaitable[None]], name: str, content: bytes
    ) -> None:
        try:
            await write(name, content)
        except ClientError as error:
            status = _status(error)
            if status in _EXISTS:
                return
            if status != HTTPStatus.NOT_IMPLEMENTED or not self._conditional:
                raise
            log.warning("objects.no_conditional_writes")
            self._conditional = False
            await write(name, content)

    def _once_only(self) -> dict[str, str]:
        return {"IfNoneMatch": "*"} if self._conditional else {}

    async def _put_whole(self, name: str, content: bytes) -> None:
        digest = {"ChecksumSHA256": _sha256(content)} if self._checksums else {}
        await self._client.put_object(
            Bucket=self._bucket, Key=name, Body=content, **digest, **self._once_only()
        )

    async def _put_in_parts(self, name: str, content: bytes) -> None:
        algorithm = {"ChecksumAlgorithm": "SHA256"} if self._checksums else {}
        where = {"Bucket": self._bucket, "Key": name}
        begun = await self._client.create_multipart_upload(**where, **algorithm)
        where["UploadId"] = begun["UploadId"]
        try:
            parts = [
                await self._put_part(where, number, content[start : start + PART_BYTES])
                for number, start in enumerate(range(0, len(content), PART_BYTES), 1)
            ]
            await self._client.complete_multipart_upload(
                **where, MultipartUpload={"Parts": parts}, **self._once_only()
            )
        except BaseException:
            # It may be complete, and only the answer lost.
            with suppress(*_TROUBLE):
                await self._client.abort_multipart_upload(**where)
            raise

    async def _put_part(self, where: dict[str, str], number: int, content: bytes) -> dict[str, Any]:
        digest = {"ChecksumSHA256": _sha256(content)} if self._checksums else {}
        done = await self._client.upload_part(**where, PartNumber=number, Body=content, **digest)
        return {"PartNumber": number, "ETag": done["ETag"], **digest}

    async def _get(self, name: str, start: int = 0, length: int = 0) -> bytes:
        wanted = {"Range": f"bytes={start}-{start + length - 1}"} if length else {}
        try:
            response = await self._client.get_object(Bucket=self._bucket, Key=name, **wanted)
            async with response["Body"] as body:
                content: bytes = await body.read()
        except ClientError as error:
            # A bucket that is gone is trouble, not the answer that the object is.
            if _code(error) == "NoSuchKey":
                raise ObjectMissing(name) from None
            if _code(error) == "InvalidRange":
                # It ends before the part begins.
                return b""
            raise
        if len(content) != response["ContentLength"]:
            raise TimeoutError
        if wanted and "ContentRange" not in response:
            # A server that knows no ranges gives all.
            return content[start : start + length]
        return content

    async def _delete(self, name: str) -> None:
        where = {"Bucket": self._bucket, "Key": name}
        if not await self._keeps_versions():
            await self._client.delete_object(**where)
            return
        for version in await self._versions(name):
            await self._client.delete_object(**where, VersionId=version)

    async def _keeps_versions(self) -> bool:
        if self._versioned is None:
            try:
                answer = await self._client.get_bucket_versioning(Bucket=self._bucket)
            except ClientError as error:
                if _status(error) not in _NOT_TOLD:
                    raise
                log.warning("objects.versions_unknown", code=_code(error))
                answer = {}
            # Where no more are made there are those from before.
            self._versioned = answer.get("Status") in {"Enabled", "Suspended"}
        return self._versioned

    async def _versions(self, name: str) -> list[str]:
        """The ids of an object's versions, and of the marks that it was deleted."""
        found: list[Any] = []
        pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=name)
        async for page in pages:
            listed = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            own = [version for version in listed if version["Key"] == name]
            found += own
            if len(own) < len(listed):
                # What only begins like the name comes behind it.
                break
        # The latest at the end: until then the object is listed, and whoever finds it deletes it again.
        found.sort(key=lambda version: version["IsLatest"])
        return [str(version["VersionId"]) for version in found]

    async def _names(self, prefix: str, after: str, most: int) -> list[str]:
        behind = {"StartAfter": after} if after else {}
        response = await self._client.list_objects_v2(
            Bucket=self._bucket, Prefix=prefix, MaxKeys=most, **behind
        )
        return sorted(str(found["Key"]) for found in response.get("Contents", ()))


@asynccontextmanager
async def bucket(settings: ObjectStorageSection) -> AsyncIterator[S3ObjectStore]:
    """The store in the bucket that the settings name; nothing is sent before the first call."""
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": DRIVER_ATTEMPTS},
        request_checksum_calculation=settings.checksum_mode,
        response_checksum_validation=settings.checksum_mode,
        # Servers other than AWS rarely have a name per bucket.
        s3={"addressing_style": "path" if _is_foreign(settings.endpoint) else "auto"},
    )
    session = aioboto3.Session(
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=settings.secret_access_key.get_secret_value() or None,
        region_name=settings.region,
    )
    async with session.client("s3", endpoint_url=settings.endpoint or None, config=config) as client:
        yield S3ObjectStore(client, settings)


def _is_foreign(endpoint: str) -> bool:
    return bool(endpoint) and not endpoint.rstrip("/").endswith(".amazonaws.com")


async def _with_patience(work: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(DEADLINE_S):
            for _ in range(ATTEMPTS - 1):
                try:
                    return await work()
                except _TROUBLE as error:
                    if not _passes(error):
                        raise
            return await work()
    except _TROUBLE as error:
        raise ObjectTrouble(
            _code(error) if isinstance(error, ClientError) else type(error).__name__
        ) from None


def _passes(error: BaseException) -> bool:
    """Whether another try may succeed at once and the driver has made none."""
    if isinstance(error, ClientError):
        return _status(error) == HTTPStatus.CONFLICT
    return isinstance(error, aiohttp.ClientPayloadError | TimeoutError | BotoCoreError)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()
