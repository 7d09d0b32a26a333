"""Workers as they are, but for gates in the way of the KV blocks.

A test closes a gate by a file `close-NAME` beside this module, of which it has made a copy. Who
comes to a closed gate writes its pid to `at-NAME` and waits until it is open again. `NAME`:

    offer   a prompt is computed, and its blocks are not on offer yet (context worker)
    pull    a ticket has come, and nothing is copied yet (generation worker)
    copy    the first block is copied, and no other (generation worker)
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from actors.kv.transfer import Exchange
from actors.worker.actor import ContextWorker, GenerationWorker

HERE = Path(__file__).parent
LOOK_S = 0.002


def gate(name: str) -> None:
    """Pass, once it is open. Blocks the calling thread, which is never that of an event loop."""
    closed, at = HERE / f"close-{name}", HERE / f"at-{name}"
    if not closed.exists():
        return
    written = at.with_suffix(f".{os.getpid()}")
    written.write_text(str(os.getpid()), encoding="ascii")
    written.rename(at)
    while closed.exists():
        time.sleep(LOOK_S)


def offer(self: Exchange, *arguments: Any) -> Any:
    gate("offer")
    return _offer(self, *arguments)


def fetch(self: Exchange, *arguments: Any) -> Any:
    gate("pull")
    return _fetch(self, *arguments)


def read(self: Exchange, *arguments: Any) -> Any:
    _read(self, *arguments)
    gate("copy")


_offer, _fetch, _read = Exchange.offer, Exchange.fetch, Exchange._read
# For good: this module is imported by the workers of one test alone.
patch.multiple(Exchange, offer=offer, fetch=fetch, _read=read).start()


class Context(ContextWorker):
    """One whose blocks pass the gate `offer`."""


class Generation(GenerationWorker):
    """One whose blocks pass the gates `pull` and `copy`."""
