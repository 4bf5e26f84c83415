"""What services ask of a store of objects: a place for named, immutable bytes.

Names are made once and never again, so no write ever replaces anything, and whoever has a name and the
checksum of what it names can tell whether it holds what it should. Nothing else is relied on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import SecretStr, model_validator

from webhook_shared.settings import Secret, Section, setting

DEADLINE_S = 60.0
"""For one call, repetitions included."""
MOST_NAMES = 1000


class ObjectTrouble(Exception):
    """The store can't be reached, refuses or is too slow; the call may or may not have had its effect."""


class ObjectMissing(Exception):
    """The store has no object of this name."""


class ObjectStore(Protocol):
    """Keeps objects; every method raises ObjectTrouble."""

    async def put(self, name: str, content: bytes) -> None:
        """Make an object durable."""

    async def get(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            ObjectMissing: There is none.
        """

    async def part(self, name: str, start: int, length: int) -> bytes:
        """Some bytes of an object; fewer where it ends before.

        Args:
            name: Of the object.
            start: How many bytes lie before them.
            length: How many; 1 or more.

        Raises:
            ObjectMissing: There is none.
        """

    async def names(self, prefix: str, *, after: str = "", most: int = MOST_NAMES) -> list[str]:
        """Names that begin so, in order.

        Args:
            prefix: What they begin with.
            after: Only those behind this one.
            most: Most of them, at most MOST_NAMES.
        """

    async def delete(self, name: str) -> None:
        """Let there be no such object."""


class ObjectStorageSection(Section):
    """`webhook.cold_storage`: the bucket of cold contexts and archived events, or their directory."""

    endpoint: str = setting(
        "",
        env="S3_ENDPOINT",
        pattern=r"^(https?://[^\s/]+/?)?$",
        description="URL of the S3-compatible store; empty means AWS.",
    )
    bucket: str = setting(
        "",
        env="S3_BUCKET",
        pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$",
        description="Name of the bucket; empty means a local directory.",
    )
    region: str = setting(
        "us-east-1",
        env="S3_REGION",
        pattern=r"^[a-z0-9-]{1,64}$",
        description="Region of the bucket.",
    )
    access_key_id: str = setting("", env="AWS_ACCESS_KEY_ID", description="Id of the access key.")
    secret_access_key: Secret = setting(
        SecretStr(""),
        env="AWS_SECRET_ACCESS_KEY",
        description="Secret of the access key.",
    )
    directory: Path = setting(
        Path("var/cold"),
        env="WEBHOOK_COLD_DIRECTORY",
        description="Where cold contexts and old events lie without a bucket; all replicas share it.",
    )
    checksum_mode: Literal["when_supported", "when_required"] = setting(
        "when_supported",
        description="when_required: send no checksums to a server that does not understand them.",
    )
    conditional_writes: bool = setting(
        True, description="Ask the server to refuse a write that would replace something."
    )

    @model_validator(mode="after")
    def _whole_credential(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key.get_secret_value()):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY go together: set both or none")
        return self
