"""What is measured is a service: processes that can be started, asked over HTTP, and stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "topologies" / "models" / "capitals"
WORK = ROOT / "bench" / "out" / "versus"
"""Environments of the peers, logs, servers' data; git ignores it."""
READY_S = 120.0
END_S = 20.0


class NotInstalled(Exception):
    """A peer that cannot be set up here."""


class Service(ABC):
    """One thing to be measured, running."""

    name: str
    model: str
    """What requests call it."""
    listed = ""
    """What /v1/models calls it, where that is another name."""

    def __init__(self) -> None:
        self.url = ""
        self.pids: list[str] = []
        """Those whose CPU counts, with their descendants."""

    @contextmanager
    def running(self, speedup: float) -> Iterator[None]:
        """Serve, with the engine's time divided by `speedup`, 0 for none at all."""
        with ExitStack() as stack:
            self.start(stack, speedup)
            await_model(self.url, self.listed or self.model, self.name)
            yield

    @abstractmethod
    def start(self, stack: ExitStack, speedup: float) -> None:
        """Start the processes, have the stack end them, and set `url` and `pids`."""


def installed(what: str, home: Path, *steps: Sequence[str]) -> str:
    """The Python of an environment of its own, made once by these `pip install`s. Raises
    NotInstalled."""
    python = home / "bin" / "python"
    if (home / "complete").exists():
        return str(python)
    print(f"installing {what} into {home} ...", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        for step in steps:
            subprocess.run([*pip, *step], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotInstalled(f"{what} cannot be installed: {error}") from error
    (home / "complete").touch()
    return str(python)


@contextmanager
def empty_directory(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def process(
    command: Sequence[str], environment: Mapping[str, str], log: Path, directory: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, ended with all that is in it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=directory,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def await_model(url: str, model: str, name: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=2.0) as answer:  # noqa: S310
                if f'"{model}"'.encode() in answer.read():
                    return
        except (OSError, urllib.error.URLError):
            pass  # not up yet
        time.sleep(0.1)
    raise TimeoutError(f"{name} did not serve {model!r} within {READY_S:g} s; see {WORK}")
