"""Real NATS and etcd servers for tests: started on free loopback ports, killed afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings

START_DEADLINE_S = 20.0


def free_port() -> int:
    """A loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One real server process that can be killed, paused and started again on its port."""

    def __init__(self, command: list[str], ready_line: bytes) -> None:
        self._command = command
        self._ready_line = ready_line
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when the server says that it is ready."""
        process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self._process = process
        assert process.stdout is not None
        deadline = time.monotonic() + START_DEADLINE_S
        seen = b""
        while self._ready_line not in seen:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError(f"{self._command[0]} is not ready: {seen[-2000:]!r}")
            data = process.stdout.read(65536)
            if not data:
                raise RuntimeError(f"{self._command[0]} ended: {seen[-2000:]!r}")
            seen += data
        # The pipe must not fill up; the rest is of no interest.
        self._drain = subprocess.Popen(
            ["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        process.stdout.close()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Paused by SIGSTOP, as a machine that hangs: connections stay, nothing answers."""
        assert self._process is not None
        self.signal(signal.SIGSTOP)
        # The signal is sent, not yet obeyed: wait until every thread has stopped.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def killed(self) -> Iterator[None]:
        """Dead for the duration, and started again on the same port and data."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._drain.wait()
            self._process = None


class Plane:
    """Both servers, and how to reach them."""

    def __init__(self, directory: Path) -> None:
        self.etcd_directory = directory / "etcd"
        scripts = Path(sysconfig.get_path("scripts"))
        nats_port, client_port, peer_port = free_port(), free_port(), free_port()
        self.nats_settings = NatsSettings(
            urls=(f"nats://127.0.0.1:{nats_port}",), token="secret", connect_timeout_s=5
        )
        self.etcd_settings = EtcdSettings(
            urls=(f"http://127.0.0.1:{client_port}",), connect_timeout_s=10, lease_ttl_s=2
        )
        self.nats = Server(
            [
                str(scripts / "nats-server"),
                *("--addr", "127.0.0.1", "--port", str(nats_port), "--auth", "secret"),
                *("--jetstream", "--store_dir", str(directory / "jetstream")),
            ],
            b"Server is ready",
        )
        client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
        self.etcd = Server(
            [
                str(scripts / "etcd"),
                *("--data-dir", str(self.etcd_directory)),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
                *("--heartbeat-interval", "50", "--election-timeout", "250"),
                *("--logger", "zap", "--log-level", "info"),
            ],
            b"ready to serve client requests",
        )


@contextlib.contextmanager
def running_plane(directory: Path) -> Iterator[Plane]:
    """Both servers up for the duration."""
    plane = Plane(directory)
    try:
        plane.nats.start()
        plane.etcd.start()
        yield plane
    finally:
        plane.nats.kill()
        plane.etcd.kill()
