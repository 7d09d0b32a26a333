"""Tells the service manager that runs us how we are: sd_notify(3), one datagram a message.

Nothing is sent, and nothing fails, where no manager asked for it (`NOTIFY_SOCKET` is not set).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping

import structlog

from supervisor import events

log = structlog.get_logger("notify")


class Notifier:
    """A listener to events that passes on what a service manager wants to know.

    While it is open, `WATCHDOG=1` is sent from the event loop at half the interval that the
    manager asks for (`WATCHDOG_USEC`): a supervisor whose loop does not turn is killed and
    started again by systemd, as a node's is by its supervisor.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._interval_s = watchdog_interval_s(environ, os.getpid())
        self._timer: asyncio.TimerHandle | None = None
        if self._address is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # A manager that does not read must not hold up the loop that it watches.
            self._socket.setblocking(False)  # noqa: FBT003 - positional in the standard library

    def open(self) -> None:
        """Begin to send `WATCHDOG=1`, if that is wanted. Needs a running loop."""
        if self._socket is not None and self._interval_s is not None:
            self._beat(asyncio.get_running_loop(), self._interval_s)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.Serving(urls=urls):
                where = f"serving on {', '.join(urls)}" if urls else "serving"
                self.send("READY=1", f"STATUS={where}")
            case events.ChildEnded(id=child, reason=reason, expected=False):
                self.send(f"STATUS={child} ended: {one_line(reason)}")
            case events.ChildReady(id=child, down_s=down) if down is not None:
                self.send(f"STATUS={child} is ready again")
            case events.ChangeStarted(what=what):
                now_us = int(asyncio.get_running_loop().time() * 1_000_000)
                # The loop's clock is CLOCK_MONOTONIC, which is the one that systemd compares with.
                self.send("RELOADING=1", f"MONOTONIC_USEC={now_us}", f"STATUS={one_line(what)}")
            case events.ChangeDone(what=what):
                self.send("READY=1", f"STATUS=done: {one_line(what)}")
            case events.ChangeFailed(what=what, reason=reason):
                self.send("READY=1", f"STATUS=failed: {one_line(what)}: {one_line(reason)}")
            case events.Stopping():
                self.send("STOPPING=1", "STATUS=stopping")
            case events.Stopped(reason=reason):
                self.send(f"STATUS=stopped: {one_line(reason)}")
            case _:
                pass

    def send(self, *lines: str) -> None:
        """One message. A manager that cannot take it now does without."""
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("service_manager_not_told", error=str(error))

    def _beat(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self.send("WATCHDOG=1")
        self._timer = loop.call_later(interval_s, self._beat, loop, interval_s)


def watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """How often to send `WATCHDOG=1`: half of what the manager allows; None when it asks nothing
    of this process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    limit_us = environ.get("WATCHDOG_USEC", "")
    return int(limit_us) / 2_000_000 if limit_us.isdecimal() and int(limit_us) > 0 else None


def without_manager(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for children: they must not answer for us."""
    ours = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
    return {key: value for key, value in environ.items() if key not in ours}


def one_line(text: str) -> str:
    """A message is made of lines: nothing in one may break it."""
    return " ".join(text.split())


def _address(path: str) -> str | None:
    """The socket's address: a path, or `@name` in the abstract namespace."""
    if path.startswith("@"):
        return f"\0{path[1:]}"
    return path if path.startswith("/") else None
