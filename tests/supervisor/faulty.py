"""An actor that fails in the ways a watchdog is for: written beside a topology by tests."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import asyncio
import os
import time

import msgspec

from actors.runtime.actor import Actor, handler
from actors.runtime.message import Message


class Block(Message, frozen=True):
    """Block the event loop."""

    seconds: float


class Stand(Message, frozen=True):
    """Have work, and do not get on with it."""

    patience_s: float


class WhoAreYou(Message, frozen=True):
    pass


class Fall(Message, frozen=True):
    """Fail."""


class FaultyOptions(msgspec.Struct, frozen=True):
    fifo: str = ""
    """Opened for reading in `starting`, which therefore lasts until somebody writes."""


class Faulty(Actor):
    Options = FaultyOptions
    busy = False
    patience = 0.0

    async def starting(self):
        if self.options.fifo:
            await asyncio.to_thread(lambda: open(self.options.fifo).read())

    def progress(self):
        return 0, self.busy

    def patience_s(self):
        return self.patience

    @handler
    def block(self, message: Block) -> None:
        time.sleep(message.seconds)

    @handler
    def stand(self, message: Stand) -> None:
        self.busy, self.patience = True, message.patience_s

    @handler
    def fall(self, message: Fall) -> None:
        raise RuntimeError("fell")

    @handler
    def who(self, message: WhoAreYou) -> int:
        return os.getpid()
'''


def write_faulty(directory: Path, *, head: str = "", entry: str = "", more: str = "") -> Path:
    """A topology with one `faulty`, and whatever else its text says."""
    (directory / "faulty.py").write_text(MODULE)
    path = directory / "faulty.yaml"
    path.write_text(
        f"namespace: faulty\n{head}\nchildren:\n"
        f"  - {{name: faulty, actor: 'faulty:Faulty', drain: 0s, {entry}}}\n{more}"
    )
    return path
