"""Scripted faults: what goes wrong, and at which step or token.

A fault is triggered by a step of the engine (`step`, from 1) or by a token of a request
(`request`: the n-th one submitted, from 1; `token`: its k-th output token here, from 1). A fault
at token k strikes when that token has been computed and before anyone has seen it. Every fault
fires once in a life of the process; with `marker`, once as long as that file exists, so that a
restarted engine lives on.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec

from actors.engines.base import Output, Outputs

FromOne = Annotated[int, msgspec.Meta(ge=1)]


class _Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"):
    marker: str = ""
    """A file created as the fault fires, which outlives a killed process. While it exists the
    fault stays quiet; a fault run whose marker is missing did not test anything."""


class _Triggered(_Fault, frozen=True, kw_only=True):
    """Exactly one of `step` and `request` says when."""

    step: FromOne | None = None
    request: FromOne | None = None
    token: FromOne = 1

    def __post_init__(self) -> None:
        if (self.step is None) == (self.request is None):
            raise ValueError("a fault needs exactly one of step and request")


class Kill(_Triggered, frozen=True, tag="kill"):
    """SIGKILL to the own process."""


class Exit(_Triggered, frozen=True, tag="exit"):
    """End the process at once with this code, running no handlers."""

    code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1


class Stall(_Triggered, frozen=True, tag="stall"):
    """Never step again, and stay busy: what a hung GPU kernel looks like."""


class SlowDown(_Triggered, frozen=True, kw_only=True, tag="slow"):
    """Steps take `factor` times as long, for so many steps."""

    factor: Annotated[float, msgspec.Meta(gt=0)]
    steps: FromOne = 1_000_000_000


class Fail(_Triggered, frozen=True, tag="fail"):
    """EngineFailed from `steps`."""


class Drop(_Fault, frozen=True, kw_only=True, tag="drop"):
    """Lose one token of one request on its way out; its later tokens arrive."""

    request: FromOne
    token: FromOne = 1


class FailHandoff(_Fault, frozen=True, kw_only=True, tag="fail_handoff"):
    """The n-th fetch of KV blocks fails after its time."""

    handoff: FromOne = 1


class RefuseStart(_Fault, frozen=True, tag="refuse_start"):
    """EngineFailed from `start`."""


class IgnoreSigterm(_Fault, frozen=True, tag="ignore_sigterm"):
    """From the engine's start on SIGTERM has no effect on the process, whoever handled it."""


Fault = Kill | Exit | Stall | SlowDown | Fail | Drop | FailHandoff | RefuseStart | IgnoreSigterm
"""Told apart by the field `do`."""


class Script:
    """Says which faults are due now, each once, and counts them. Touches nothing but markers."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.fired: Counter[str] = Counter()
        """By the fault's `do`, from when each began to take effect."""
        self._pending = [fault for fault in faults if not _marked(fault)]
        self._submitted = 0
        self._handoffs = 0
        self._targets: dict[int, int] = {}
        self._produced: dict[int, int] = {}

    def at_start(self) -> list[Fault]:
        """What happens while the engine starts."""
        return self._fire([f for f in self._pending if isinstance(f, RefuseStart | IgnoreSigterm)])

    def at_submit(self, request_id: int) -> None:
        """Count a request, and watch its tokens when some fault waits for one of them."""
        self._submitted += 1
        if any(getattr(fault, "request", None) == self._submitted for fault in self._pending):
            self._targets[request_id] = self._submitted
            self._produced[request_id] = 0

    def at_step(self, step: int) -> list[Fault]:
        """What happens as this step ends."""
        if not self._pending:
            return []
        return self._fire([f for f in self._pending if getattr(f, "step", None) == step])

    def at_handoff(self) -> list[Fault]:
        """What happens to the fetch that ends now."""
        self._handoffs += 1
        due = [f for f in self._pending if isinstance(f, FailHandoff)]
        return self._fire([f for f in due if f.handoff == self._handoffs])

    def at_outputs(self, outputs: Outputs) -> list[Fault]:
        """What happens because of these tokens. A dropped token is taken out of its output, and
        the output with it unless it says more."""
        if not self._targets:
            return []
        fired: list[Fault] = []
        everything = list(outputs)
        outputs.full, outputs.plain = everything, []
        for output in list(everything):
            if output.id not in self._targets:
                continue
            if output.tokens:
                fired += self._at_tokens(output, everything)
            if output.finish is not None or output.handoff is not None:
                del self._targets[output.id], self._produced[output.id]
        return fired

    def _at_tokens(self, output: Output, outputs: list[Output]) -> list[Fault]:
        number = self._targets[output.id]
        self._produced[output.id] += len(output.tokens)
        due = self._fire(
            [
                fault
                for fault in self._pending
                if getattr(fault, "request", None) == number
                and getattr(fault, "token", 0) == self._produced[output.id]
            ]
        )
        if any(isinstance(fault, Drop) for fault in due):
            output.tokens = []
            output.logprobs = None
            if output.finish is None and output.handoff is None:
                outputs.remove(output)
        return due

    def _fire(self, due: list[Fault]) -> list[Fault]:
        for fault in due:
            self._pending.remove(fault)
            self.fired[str(fault.__struct_config__.tag)] += 1
            if fault.marker:
                Path(fault.marker).touch()
        return due


def _marked(fault: Fault) -> bool:
    return bool(fault.marker) and Path(fault.marker).exists()
