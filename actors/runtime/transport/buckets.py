"""Small values that outlive the processes that put them there, for a while: a bucket of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from actors.runtime.errors import ActorError


class BucketUnavailable(ActorError):
    """What keeps the bucket cannot be reached, or keeps nothing."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"bucket {name}: {why}")
        self.why = why


class ValueTooLong(ActorError):
    """The value is longer than what the bucket takes."""


class BucketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a bucket holds. Beyond `total_bytes` the oldest values go first."""

    ttl_s: float
    """A value is gone this long after it was put."""
    total_bytes: int
    value_bytes: int
    """One value may have; at most what a frame of the transport may."""


class Bucket(ABC):
    """Values by key, seen by every node of the namespace."""

    @abstractmethod
    async def put(self, key: str, value: bytes) -> None:
        """Return when the value is kept. Raises ValueTooLong, BucketUnavailable."""

    @abstractmethod
    async def get(self, key: str) -> bytes | None:
        """None when there is no such key, or no more. Raises BucketUnavailable."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Forget a key, if it is there. Raises BucketUnavailable."""
