"""A tree of real processes: the supervisor's own shell around the tree, with shell scripts below.

No NATS, no etcd, no nodes: what is held here is between the supervisor and the operating system.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ParamSpec

import msgspec

from actors.runtime.pids import is_alive
from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings
from supervisor import events, tree
from supervisor.layout import Layout
from supervisor.plan import ROOT, Plan
from supervisor.plane import NATS
from supervisor.recipe import NODE_VARIABLE, Recipe
from supervisor.runstate import this_process
from supervisor.supervisor import Supervisor
from tests.supervisor.stage import AT_ONCE

POLITE = "echo ready; exec sleep 1000"
DEAF = "trap '' TERM; echo ready; while :; do sleep 1000; done"
SLOW = "trap 'sleep 0.4; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
"""Ends 0.4 s after it was asked to."""
FAILS_AGAIN = "[ -e $ONCE ] && exit 1; touch $ONCE; echo ready; exec sleep 1000"
"""Starts well once, and never again."""
AT_MOST_S = 20.0
"""For what takes a moment, on a machine that may be busy."""
P = ParamSpec("P")


def as_supervised(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test on the loop that a supervisor runs on: uvloop keeps SIGCHLD to itself."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(AT_MOST_S):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


def script(name: str, text: str, **settings: object) -> tree.ChildSpec:
    """A child that runs a shell script; it is ready when it has said so."""
    spec = tree.ChildSpec(
        name,
        backoff=AT_ONCE,
        data=Recipe(
            argv=("/bin/sh", "-c", text),
            env={"PATH": os.environ["PATH"], "ONCE": f"once-{name}", NODE_VARIABLE: name},
            cwd="/",
            ready_mark=b"ready",
        ),
    )
    return msgspec.structs.replace(spec, **settings)


class Shell:
    """A supervisor in this process, and what a test wants to know of its children."""

    def __init__(self, directory: Path, spec: tree.SupervisorSpec) -> None:
        layout = Layout(directory / "state", {})
        layout.create()
        plan = Plan(
            namespace="state",
            topology=directory / "none.yaml",
            tree=_in(directory, spec),
            nats=NatsSettings(urls=("nats://127.0.0.1:1",)),
            etcd=EtcdSettings(urls=("http://127.0.0.1:1",)),
            ports={NATS: 1},  # of ours, so that nobody connects before it is up, which is never
        )
        self._pids: dict[str, list[tuple[int, int]]] = {}
        self.news = asyncio.Event()
        """Set whenever something is told."""
        self.ended: list[events.ChildEnded] = []
        self.directory = directory
        self.supervisor = Supervisor(
            plan, layout, this_process("state", plan.topology), listeners=(self._hear,)
        )

    def _hear(self, event: events.Event) -> None:
        match event:
            case events.ChildStarting(id=id_, pid=pid):
                started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
                self._pids.setdefault(id_, []).append((pid, started))
            case events.ChildEnded():
                self.ended.append(event)
            case _:
                pass
        self.news.set()

    async def until_running(self, id_: str) -> None:
        while self.state(id_) is not tree.State.RUNNING:
            self.news.clear()
            await self.news.wait()

    async def until_ended(self, id_: str, times: int = 1) -> None:
        while sum(event.id == id_ for event in self.ended) < times:
            self.news.clear()
            await self.news.wait()

    def state(self, id_: str) -> tree.State:
        return next(one for one in self.supervisor.look() if one.id == id_).state

    def reason(self, id_: str) -> str:
        """Why its last process ended, as everybody is told."""
        return next(event.reason for event in reversed(self.ended) if event.id == id_)

    def pid(self, id_: str) -> int:
        return self._pids[id_][-1][0]

    def starts(self, id_: str) -> int:
        return len(self._pids.get(id_, ()))

    async def terminate(self, id_: str) -> tree.Done | tree.Refused:
        return await self.supervisor.order(lambda ref: tree.TerminateChild(ref, id_))

    def nobody_is_left(self) -> bool:
        """Whether every process that was ever started is gone."""
        all_ = [one for lives in self._pids.values() for one in lives]
        return not any(is_alive(pid, started) for pid, started in all_)


@asynccontextmanager
async def running(
    directory: Path, children: Sequence[tree.Spec], **settings: object
) -> AsyncIterator[Shell]:
    """A root with these children, up; ended at the end if the test has not."""
    root = tree.SupervisorSpec(ROOT, intensity=1000, period_s=1000.0, children=tuple(children))
    shell = Shell(directory, msgspec.structs.replace(root, **settings))
    run = asyncio.create_task(shell.supervisor.run(), name="supervisor")
    try:
        await shell.until_running(ROOT)
        yield shell
    finally:
        shell.supervisor.stop(force=True)
        await run
    assert shell.nobody_is_left()


async def stopped(shell: Shell) -> float:
    """Stop the tree in good order; how long it took, in seconds."""
    began = time.monotonic()
    shell.supervisor.stop()
    while shell.supervisor.look()[0].state is not tree.State.STOPPED:
        shell.news.clear()
        await shell.news.wait()
    return time.monotonic() - began


def _in(directory: Path, spec: tree.SupervisorSpec) -> tree.SupervisorSpec:
    """The same with the children's working directory."""

    def placed(child: tree.Spec) -> tree.Spec:
        if isinstance(child, tree.SupervisorSpec):
            return _in(directory, child)
        recipe = msgspec.structs.replace(child.data, cwd=str(directory))
        return msgspec.structs.replace(child, data=recipe)

    template = spec.template and placed(spec.template)
    children = tuple(placed(child) for child in spec.children)
    return msgspec.structs.replace(spec, children=children, template=template)
