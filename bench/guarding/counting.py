"""What Python does, counted: the same on every run and every machine."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

WRITES = frozenset({"write", "send", "sendall", "sendto", "sendmsg"})


class Counts(msgspec.Struct):
    """Since counting began."""

    instructions: int = 0
    """Of Python's virtual machine."""
    calls: int = 0
    """Of Python functions, coroutines' resumptions included."""
    c_calls: int = 0
    """Of functions written in C."""
    writes: int = 0
    """System calls that write to a descriptor."""

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[int, int, int, int]:
        return (self.instructions, self.calls, self.c_calls, self.writes)

    def copy(self) -> Counts:
        return Counts(*self._all())


@contextmanager
def counting() -> Iterator[Counts]:
    """Count everything this thread does within."""
    counts = Counts()

    def trace_opcodes(frame: FrameType, event: str, _argument: Any) -> Any:
        del frame
        if event == "opcode":
            counts.instructions += 1
        return trace_opcodes

    def trace_call(frame: FrameType, _event: str, _argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counts.calls += 1
        return trace_opcodes

    def profile(_frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            counts.c_calls += 1
            if argument.__name__ in WRITES and _writes(argument):
                counts.writes += 1

    # Collections call finalisers when it suits them.
    gc.collect()
    gc.disable()
    sys.setprofile(profile)
    sys.settrace(trace_call)
    try:
        yield counts
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()


def _writes(function: Any) -> bool:
    return function is os.write or isinstance(getattr(function, "__self__", None), socket.socket)
