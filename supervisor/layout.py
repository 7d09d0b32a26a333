"""Where the files of one supervisor lie.

<state>/              `state_dir`, mode 0700
    lock              held as long as a supervisor lives; says who holds it
    run.json          what is running, for the next supervisor
    supervisor.sock   children's links and the command line (or elsewhere, when too long)
    logs/             one file a child
    nodes/            the specification each node was started with
    nats/, etcd/      configuration and data of the embedded servers
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

NODE_MARK = "@"
"""Between namespace and node in the name of a state directory; in neither."""
MAX_SOCKET_PATH_BYTES = 100
"""The system's limit is 108, the terminating NUL included."""


def state_dir(namespace: str, environ: Mapping[str, str], node: str | None = None) -> Path:
    """Where the supervisor of this namespace keeps its run state and its embedded servers' data.

    `$UNDERSTUDY_STATE_DIR`, else `$XDG_STATE_HOME/understudy`, else `~/.local/state/understudy`,
    and the namespace below it, of one node of several `namespace@node`: several machines may share
    a home. Absolute, except where the first is not; not created.
    """
    if own := environ.get("UNDERSTUDY_STATE_DIR"):
        base = Path(own)
    elif (xdg := environ.get("XDG_STATE_HOME")) and Path(xdg).is_absolute():
        base = Path(xdg) / "understudy"  # a relative one is to be ignored, says its specification
    else:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
        base = home / ".local" / "state" / "understudy"
    return base / (namespace if node is None else f"{namespace}{NODE_MARK}{node}")


class UnsafeDirectoryError(Exception):
    """A directory that should be ours alone is somebody else's, or open to others."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} must be a directory of yours that nobody else can write to")


class Layout:
    """The paths; `create` makes the directories."""

    def __init__(self, state: Path, environ: Mapping[str, str]) -> None:
        self.state = state.absolute()
        self.lock = self.state / "lock"
        self.run = self.state / "run.json"
        self.logs = self.state / "logs"
        self.nodes = self.state / "nodes"
        self.nats = self.state / "nats"
        self.etcd = self.state / "etcd"
        self.socket = socket_path(self.state, environ, os.getuid())

    @property
    def namespace(self) -> str:
        """Whose state it is."""
        return self.state.name.partition(NODE_MARK)[0]

    @property
    def node(self) -> str | None:
        """Which part of the namespace, if it is of several nodes."""
        return self.state.name.partition(NODE_MARK)[2] or None

    def log(self, child: str) -> Path:
        """Where a child's output goes."""
        return self.logs / f"{file_name(child)}.log"

    def node_spec(self, child: str) -> Path:
        """The file a node's process reads."""
        return self.nodes / f"{file_name(child)}.json"

    def create(self) -> None:
        """Make what is missing, for this user only. Raises OSError, UnsafeDirectoryError."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        for path in (self.state, self.logs, self.nodes, self.nats):
            path.mkdir(mode=0o700, exist_ok=True)
        self.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in {self.state, self.socket.parent}:
            _require_ours(path)


def file_name(child: str) -> str:
    """A child's id as the name of a file; no two ids share one, as `.` is in none."""
    return child.replace("/", ".")


def child_of_log(log: Path) -> str:
    """The id of the child whose log this is."""
    return log.name.removesuffix(".log").replace(".", "/")


def socket_path(state: Path, environ: Mapping[str, str], uid: int) -> Path:
    """Inside the state directory, or under a short name where that path would be too long."""
    path = state / "supervisor.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    name = f"{hashlib.blake2b(os.fsencode(state), digest_size=8).hexdigest()}.sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        path = Path(runtime) / "understudy" / name
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
    # A well-known place in a directory open to all: `create` refuses it when it is not ours.
    return Path(f"/tmp/understudy-{uid}") / name  # noqa: S108 - checked by _require_ours


def _require_ours(path: Path) -> None:
    found = path.lstat()
    others_may_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or others_may_write:
        raise UnsafeDirectoryError(path)
