"""How frames get from one node to another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

from actors.runtime.transport.buckets import Bucket, BucketLimits

Receiver = Callable[[bytes, str], None]
"""Called with a frame and the subject to answer on (empty: no answer is wanted)."""

Bounce = Callable[[bytes | None], None]
"""Called when a tell came back: with the receiver's fault, or None when nobody was there."""

TransportHealth = Literal["connected", "lost"]


class Subscription(ABC):
    """Interest in one subject."""

    @abstractmethod
    async def cancel(self) -> None:
        """Stop delivering. Frames that already arrived may still be delivered before it returns."""


class TransportStatistics(NamedTuple):
    published: int
    received: int
    dropped: int
    """Frames given up here because `outbox_limit` was reached while the server was away."""


class Transport(ABC):
    """At most once, and in order between one publisher and one subject while connected.

    An outage is the transport's business: it reconnects and subscribes again by itself. What was
    under way then is lost; whoever needs an answer has a deadline.
    """

    on_regained: Callable[[], None] | None = None
    """Called when the connection is back after it was lost."""

    @abstractmethod
    async def start(self) -> None:
        """Connect. Raises PlaneUnavailable."""

    @abstractmethod
    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        """Deliver every frame published on the subject. The subscription is in force at return."""

    @abstractmethod
    def publish(self, subject: str, frame: bytes, bounce: Bounce | None = None) -> None:
        """Send a frame; return at once.

        With `bounce` the sender learns, as far as the transport can tell, that the frame was not
        taken. No call means nothing: the frame was taken, or it was lost.
        """

    @abstractmethod
    async def request(self, subject: str, frame: bytes, timeout_s: float) -> bytes:
        """Send a frame and wait for the answer.

        In order with what `publish` sends. Raises NoSuchActor when nobody listens, Refused when the
        frame is too long or the outbox full, AskTimeout, and PlaneUnavailable once closed.
        """

    @abstractmethod
    def bucket(self, name: str, limits: BucketLimits) -> Bucket:
        """A bucket of that name, shared with whoever names it. Nothing is asked of the server until
        it is used."""

    @abstractmethod
    async def flush(self, timeout_s: float) -> None:
        """Return when everything published so far has reached the server, or time is up."""

    @abstractmethod
    async def close(self) -> None:
        """Flush and disconnect."""

    @property
    @abstractmethod
    def frame_limit_bytes(self) -> int:
        """The longest frame that can travel; a longer tell bounces, a longer ask is Refused."""

    @abstractmethod
    def statistics(self) -> TransportStatistics: ...

    @property
    @abstractmethod
    def health(self) -> TransportHealth: ...


def too_long(frame: bytes, limit_bytes: int) -> str:
    """Why a frame was not sent."""
    return f"{len(frame)} bytes are over the transport's limit of {limit_bytes}"
