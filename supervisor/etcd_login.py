"""Gives the embedded etcd a password, before it may listen where others can reach it.

etcd keeps its users in its data, and takes none from its configuration. So before its first start
on a network it is started once on loopback, told of the user, and stopped again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from supervisor.private import write_private

DEADLINE_S = 20.0
_MARK = "asks-for-a-password"


class LoginNotSetError(Exception):
    """The embedded etcd could not be given a password; it must not listen then."""

    def __init__(self, why: str) -> None:
        super().__init__(f"etcd cannot be given the password of the topology: {why}")


def require_login(
    argv: Sequence[str], url: str, ready_mark: bytes, data: Path, password: str,
    environ: Mapping[str, str],
) -> None:  # fmt: skip
    """Have the etcd with this data ask for the password of `root`; nothing is done if it does.

    `argv`: how to run it on loopback, where `url` reaches it. Raises LoginNotSetError.
    """
    mark = data.parent / f"{data.name}-{_MARK}"
    if mark.exists() and data.exists():
        return
    # Of a server without a password, or half done; everything in it is made again.
    shutil.rmtree(data, ignore_errors=True)
    process = subprocess.Popen(
        argv, env=dict(environ), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    # Reading has no deadline of its own.
    deadline = threading.Timer(DEADLINE_S, process.kill)
    deadline.start()
    assert process.stderr is not None, "it was asked for"
    # Somebody has to go on reading: a full pipe would stop it.
    rest = threading.Thread(target=process.stderr.read)
    try:
        _wait_ready(process.stderr, ready_mark)
        rest.start()
        _call(url, "user/add", {"name": "root", "password": password})
        _call(url, "role/add", {"name": "root"})
        _call(url, "user/grant", {"user": "root", "role": "root"})
        _call(url, "enable", {})
    except OSError as error:
        raise LoginNotSetError(str(error)) from error
    finally:
        deadline.cancel()
        process.terminate()
        process.wait()
        if rest.ident is not None:
            rest.join()
        process.stderr.close()
    write_private(mark, b"")


def _wait_ready(lines: IO[bytes], mark: bytes) -> None:
    last = b""
    for line in lines:
        if mark in line:
            return
        last = line
    raise LoginNotSetError(f"it ended: {last.decode(errors='replace').strip()}")


def _call(url: str, what: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - a URL of our own, on loopback
        f"{url}/v3/auth/{what}", json.dumps(body).encode(), method="POST"
    )
    # No proxy for loopback, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=DEADLINE_S):
        return
