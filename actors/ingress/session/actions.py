"""What a session wants done."""

from __future__ import annotations

from typing import Literal

import msgspec

from actors.messages.assign import Why
from actors.messages.sampling import Findings, Logprobs
from actors.runtime.address import Address


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Submit the attempt `epoch`, with the `delivered` tokens behind the prompt."""

    epoch: int
    delivered: tuple[int, ...]


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Tell this worker to cancel the attempt."""

    worker: Address
    epoch: int


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Ask this worker for what it has sent of the attempt from `offset` on."""

    worker: Address
    epoch: int
    offset: int


class Learn(msgspec.Struct, frozen=True, tag=True):
    """What was found out about the prompt. Comes once, before any token."""

    findings: Findings


class Deliver(msgspec.Struct, frozen=True, tag=True):
    """These tokens are next."""

    tokens: list[int]
    logprobs: list[Logprobs] | None


class Finish(msgspec.Struct, frozen=True, tag=True):
    """The sequence ended well."""

    reason: Literal["stop", "length"]


class Fail(msgspec.Struct, frozen=True, tag=True):
    """The sequence ended in an error."""

    why: Why | Literal["timeout"]
    text: str
    param: str = ""
    retry_after_s: float = 0.0


Action = Submit | Forget | Ask | Learn | Deliver | Finish | Fail
