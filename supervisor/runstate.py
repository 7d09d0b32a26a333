"""What a supervisor leaves behind for the next one: who holds the namespace, and what runs."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from actors.runtime.pids import is_alive, process_started
from supervisor.private import write_private


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor that has a namespace."""

    pid: int
    pid_started: int
    since: float
    """Seconds since 1970."""
    namespace: str
    topology: str
    node: str | None = None
    """Of the topology's nodes, the one it runs; None where the topology has none."""


class LockHeldError(Exception):
    """Another supervisor has this namespace."""

    def __init__(self, namespace: str, holder: Holder | None) -> None:
        self.holder = holder
        who = "another process"
        if holder is not None:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.since))
            who = f"pid {holder.pid}, since {since}, with {holder.topology}"
        node = "" if holder is None or holder.node is None else f" --node {holder.node}"
        on = f" on node '{holder.node}'" if holder is not None and holder.node else ""
        super().__init__(
            f"namespace '{namespace}' already has a supervisor{on}: {who}\n"
            f"  see it:   supervise status --namespace {namespace}{node}\n"
            f"  stop it:  supervise down --namespace {namespace}{node}\n"
            f"  or give this one another name: --namespace NAME"
        )


class Lock:
    """The exclusive right to a namespace on this host.

    It is the kernel's: it ends with the process however that ends, so there is nothing stale to
    clean up. The file's text says who has it, also after a kill: see `is_held`.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        """Raises LockHeldError, OSError."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise LockHeldError(holder.namespace, read_holder(path)) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, msgspec.json.encode(holder) + b"\n", 0)

    def release(self) -> None:
        """Give it back. The file stays: to remove it could take it from under a newcomer."""
        os.ftruncate(self._file, 0)
        os.close(self._file)


def read_holder(path: Path) -> Holder | None:
    """Who wrote the lock file; None when it is missing, empty or half written."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def is_held(path: Path) -> bool:
    """Whether a living supervisor has the lock right now.

    Asked of the text, not of the lock: to try it would be to hold it for a moment, in which a
    supervisor that starts would be refused.
    """
    holder = read_holder(path)
    return holder is not None and is_alive(holder.pid, holder.pid_started)


class RunningChild(msgspec.Struct, frozen=True, kw_only=True):
    """A process that was running when this was written."""

    name: str
    pid: int
    pid_started: int
    run: int
    server: bool = False
    """NATS or etcd, without which nodes cannot end in good order."""
    incarnations: dict[str, int] = {}
    """By actor name. Empty until the node was ready, and for servers."""
    identity: str = ""
    """What it was started with, see `supervisor.adoption`; empty: nobody can take it over."""
    granted: dict[str, str] = {}
    """Environment of this run alone: its GPUs."""
    rehearsed: bool = False
    """Of an understudy: whether it was loaded."""
    formerly: tuple[str, int] | None = None
    """Name and run by which it may still call itself: it may not have heard yet that it has stepped
    in for another."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `run.json`."""

    supervisor: Holder
    ports: dict[str, int] = {}
    """Of the embedded servers."""
    etcd_peer_port: int | None = None
    nats_token: str | None = None
    """Of the embedded server. The file is this user's alone."""
    children: tuple[RunningChild, ...] = ()
    """In start order."""
    above: dict[str, int] = {}
    """By actor name: the last incarnation known, also of those that are down."""


def still_runs(child: RunningChild) -> bool:
    """Whether the very process is alive; another one with its pid does not count."""
    return is_alive(child.pid, child.pid_started)


def write_run_state(path: Path, state: RunState) -> None:
    """Replace the file at once."""
    write_private(path, msgspec.json.format(msgspec.json.encode(state)) + b"\n")


def read_run_state(path: Path) -> RunState | None:
    """What the last supervisor wrote; None when there is nothing usable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=RunState)
    except (OSError, msgspec.MsgspecError):
        return None


def this_process(namespace: str, topology: Path, node: str | None = None) -> Holder:
    """This process as the holder of a namespace."""
    pid = os.getpid()
    return Holder(
        pid=pid,
        pid_started=process_started(pid),
        since=time.time(),
        namespace=namespace,
        topology=str(topology.absolute()),
        node=node,
    )
