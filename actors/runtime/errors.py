"""Everything the runtime raises on purpose.

ActorError
├── ProtocolError             a frame that cannot be understood
│   └── WireVersionError      it is of another version of the wire format
├── DeliveryError             a message did not get through
│   ├── NoSuchActor           nobody there: certainly not handled
│   ├── Refused               the receiver would not take it: certainly not handled
│   ├── AskTimeout            no answer in time: it may or may not have been handled
│   └── RemoteError           it was handled, and the handler failed
├── Declined                  raised by a handler to answer "no" and live on
├── NameTaken                 another live process holds the name
├── NameLost                  a later life has the name that was ours
├── PlaneUnavailable          NATS or etcd cannot be reached
│   └── PlaneRefused          ... or does not know our token or password
└── ActorFailed               an actor ended abnormally, and its node with it
"""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from elsewhere raises: msgspec leaves text that is not UTF-8 and nesting
without end to Python's own errors."""


class ActorError(Exception):
    """Base of the runtime's errors."""


class ProtocolError(ActorError):
    """A frame is malformed."""


class WireVersionError(ProtocolError):
    """A frame is of a version of the wire format that this release does not speak."""


class DeliveryError(ActorError):
    """A message did not get through, or its answer did not come back."""

    def __init__(self, target: object, why: str) -> None:
        super().__init__(f"{target}: {why}")
        self.target = target
        self.why = why


class NoSuchActor(DeliveryError):
    """No live actor has this address; the message was certainly not handled."""

    def __init__(self, target: object, why: str = "no such actor is known") -> None:
        super().__init__(target, why)


class Refused(DeliveryError):
    """The receiver would not take the message; it was certainly not handled."""


class AskTimeout(DeliveryError):
    """No answer in time. Whether the message was handled is unknown."""

    def __init__(self, target: object, timeout_s: float) -> None:
        super().__init__(target, f"no answer within {timeout_s:g} s; the outcome is unknown")
        self.timeout_s = timeout_s


class RemoteError(DeliveryError):
    """The handler raised. `remote_type` and `remote_traceback` say what, as text."""

    def __init__(self, target: object, remote_type: str, text: str, traceback: str = "") -> None:
        super().__init__(target, f"{remote_type}: {text}")
        self.remote_type = remote_type
        self.remote_traceback = traceback


class Declined(ActorError):
    """Raised by a handler to refuse one message. The asker sees a RemoteError; the actor lives.

    Every other exception in a handler is a defect: it ends the actor, and the supervisor decides
    what happens next.
    """


class NameTaken(ActorError):
    """The name is registered by a process that still lives."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(f"{name} is taken by {holder}")
        self.name = name
        self.holder = holder


class NameLost(ActorError):
    """A later life of the name is registered: this one is over, whatever it still does."""

    def __init__(self, name: str, mine: int, successor: int) -> None:
        super().__init__(f"{name}#{mine} lost its name to #{successor}, which claimed it later")
        self.name = name
        self.successor = successor


class PlaneUnavailable(ActorError):
    """NATS or etcd cannot be reached, or does not let us in."""

    def __init__(self, part: str, where: str, why: str) -> None:
        super().__init__(f"{part} at {where}: {why}")
        self.part = part


class PlaneRefused(PlaneUnavailable):
    """NATS or etcd answers, and knows no token, user or password like ours. All of these are values
    that we were started with, so that waiting helps only if the server changes."""

    def __init__(self, part: str, where: str, why: str) -> None:
        super().__init__(part, where, f"{why}: it has another token or password than we were given")


class ActorFailed(ActorError):
    """An actor ended abnormally; the node that hosts it ends for the same reason."""

    def __init__(self, name: str, cause: BaseException) -> None:
        super().__init__(f"{name} failed: {type(cause).__name__}: {cause}")
        self.name = name
        self.cause = cause
