"""Whether an embedded server still answers. It has no heart to beat, so it is asked.

A stopped process keeps its sockets, and the kernel goes on taking connections for it; only an
answer proves that somebody is there. NATS greets whoever connects; etcd is asked for its health
by HTTP. What it answers is no matter: an etcd that calls itself unhealthy (a full disk, say) is not
helped by a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from actors.runtime.transport.nats import TlsFiles
from supervisor.watchdog import Deadlines

EVERY_S = 1.0
PATIENCE_S = 2.0
"""Of one question; the next one follows at once."""
SERVER_DEADLINES = Deadlines(heartbeat_s=5.0, progress_s=None, sign="answer")
"""Generous: everything goes through these two, actors live through an outage of either, and a
restart is an outage of all. A disk that stalls for a second is better sat out."""
LOOK_EVERY_S = 0.5
HELPER_DEADLINES = Deadlines(heartbeat_s=1.5, progress_s=None, sign="sign of life")
"""Of the guard and the zygotes, which nobody misses for a moment."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a server on this host."""

    port: int
    host: str = "127.0.0.1"
    tls: TlsFiles | None = None
    """What is shown to a server that asks for it."""
    greets_in_clear: bool = False
    """The answer comes before TLS begins."""
    request: bytes = b""
    answer: bytes
    """What a living server's answer begins with."""


def nats_probe(port: int) -> Probe:
    """NATS speaks first: a line with what it is."""
    return Probe(port=port, answer=b"INFO ", greets_in_clear=True)


def etcd_probe(port: int) -> Probe:
    """etcd answers after a read through its log, so more than its HTTP server must be alive."""
    return Probe(
        port=port, request=b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", answer=b"HTTP/1."
    )


async def answers(probe: Probe, *, timeout_s: float = PATIENCE_S) -> bool:
    """Ask once, over a connection of its own."""
    try:
        async with asyncio.timeout(timeout_s):
            context = None if probe.tls is None else probe.tls.context()
            first = None if probe.greets_in_clear else context
            reader, writer = await asyncio.open_connection(probe.host, probe.port, ssl=first)
            try:
                writer.write(probe.request)
                answered = await reader.readexactly(len(probe.answer)) == probe.answer
                if probe.greets_in_clear and context is not None:
                    # To hang up in the midst of it would be an error in the server's log.
                    await reader.readline()
                    await writer.start_tls(context, server_hostname=probe.host)
                return answered
            finally:
                writer.close()
                # Nothing is left to be sent; a peer that has reset the connection is closed too.
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


class Prober:
    """Asks again and again until it is closed, and calls back for each answer."""

    def __init__(self, probe: Probe, on_answer: Callable[[], None]) -> None:
        self._probe = probe
        self._on_answer = on_answer
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"probe-{probe.port}")

    def close(self) -> None:
        """No call comes after this."""
        self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            asked_at = loop.time()
            if await answers(self._probe):
                self._on_answer()
            await asyncio.sleep(max(0.0, asked_at + EVERY_S - loop.time()))


class Pulse:
    """Looks whether a process can run at all, until it is closed, and calls back each time it can.

    For helpers that do nothing but wait, and so have nothing to say: all that can befall them is to
    be stopped.
    """

    def __init__(self, pid: int, on_answer: Callable[[], None]) -> None:
        self._pid = pid
        self._on_answer = on_answer
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def close(self) -> None:
        """No call comes after this."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)
        if can_run(self._pid):
            self._on_answer()


def can_run(pid: int) -> bool:
    """Whether there is a process with this pid that is neither stopped nor being traced."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    # The second field is the command in parentheses, and may itself contain both.
    return stat.rpartition(")")[2].split()[0] not in {"T", "t", "Z", "X"}
