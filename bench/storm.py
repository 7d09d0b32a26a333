"""A service under load in a storm: does it stand, and does it tell the truth about it?

    python -m bench.storm                      2 to 3 minutes
    python -m bench.storm --kills 300 --seed 7

Clients stream from a service on the simulated engine all the while. It is hit with

    kills      SIGKILL for processes chosen at random: workers, understudies, light roles, zygotes,
               the guard, NATS, etcd
    stops      SIGSTOP for nodes
    successions  SIGKILL for the supervisor, and a new one; once with a child that dies meanwhile
    a rolling restart of every entry
    a changed file applied, the same once more (nothing may happen), and the old one again

After each step everything must come to rest, and then: every process there is is in the status
and the other way round (no orphan, no zombie, none doubled); etcd says of every actor what the
status says; restarts are counted right; nobody was touched who was not meant. At the end nothing
is left, and no request has hung or got a wrong answer; a connection is lost only where an ingress
fell. The exit code is 1 when anything of this does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec

from actors.runtime import logs
from bench.storming.checks import at_rest, left_over, rows_of, violations
from bench.storming.clients import Clients, Outcomes
from bench.storming.service import Service
from supervisor.calls import Status
from supervisor.ids import entry_of, is_understudy, understudies_of
from supervisor.services import free_ports
from supervisor.topology import read_text

MODELS = Path(__file__).parent.parent / "topologies" / "models" / "capitals"
TOPOLOGY = """
namespace: storm
supervision: {{intensity: 100000}}
x-engine: &engine {{kind: simulated, tokenizer: "{models}", speedup: 2, blocks: 4096}}
children:
  - {{actor: context, replicas: 2, options: {{model: simulated, engine: *engine}}}}
  - name: generation
    actor: generation
    replicas: 2
    standby: 1
    options: {{model: simulated, engine: *engine}}
  - {{actor: router, replicas: 2, options: {{strategy: round_robin}}}}
  - {{actor: preprocessor, replicas: 2}}
  - {{actor: ingress, replicas: 2, options: {{port: {port}, reuse_port: true}}}}
"""
CHANGE = (
    ("speedup: 2", "speedup: 3"),
    ("replicas: 2\n    standby: 1", "replicas: 3\n    standby: 2"),
)
"""Of the file: what each worker runs with, and how many of one kind there are."""
ENTRIES = ("context", "generation", "router", "preprocessor", "ingress")
PLANE = ("supervisor/guard", "zygote/light", "zygote/worker", "nats", "etcd")
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.05
SETTLE_S = 0.2


class Step(msgspec.Struct, frozen=True):
    """What was done, how long it took to come to rest, and what was wrong then."""

    what: str
    took_s: float
    wrong: list[str]


def falls_with(victim: str) -> frozenset[str]:
    """Who has another process afterwards: the victim, and the understudy that steps in for it."""
    has_understudy = entry_of(victim) == "generation" and not is_understudy(victim)
    return frozenset({victim, "generation/standby/0"} if has_understudy else {victim})


class Storm:
    """One run."""

    def __init__(self, service: Service, text: str, rng: random.Random) -> None:
        self.steps: list[Step] = []
        self.ingress_fell: list[tuple[float, float]] = []
        """From when to when one was not there as it should be; monotonic clock."""
        self._service = service
        self._text = text
        self._rng = rng
        self._restarts: Counter[str] = Counter()
        self._expected = ids(text)
        self._pids: dict[str, int] = {}

    async def go(self, *, kills: int, stops: int) -> None:
        """All of it."""
        await self._settle("start", time.monotonic(), frozenset())
        for _ in range(kills):
            await self._strike(signal.SIGKILL, sorted(self._pids))
        for _ in range(stops):
            await self._strike(signal.SIGSTOP, [id_ for id_ in sorted(self._pids) if "/" in id_])
        await self._succeed(victim=None)
        await self._succeed(victim="generation/0")
        await self._succeed(victim="context/1")
        for entry in ENTRIES:
            await self._restart(entry)
        changed = self._text
        for old, new in CHANGE:
            assert old in changed, old
            changed = changed.replace(old, new)
        await self._apply("apply a changed file", changed, {"context", "generation"})
        await self._apply("apply it once more", changed, set())
        await self._apply("apply the old file", self._text, {"context", "generation"})
        await self._strike(signal.SIGKILL, ["generation/1"])

    async def _strike(self, number: signal.Signals, among: list[str]) -> None:
        victim = self._rng.choice(among)
        began = time.monotonic()
        os.kill(self._pids[victim], number)
        self._restarts[victim] += 1
        await self._settle(f"{number.name} {victim}", began, falls_with(victim))
        self._note_fall(victim, began)

    async def _succeed(self, victim: str | None) -> None:
        began = time.monotonic()
        await self._service.kill_supervisor()
        touched = frozenset({"zygote/light", "zygote/worker"})
        if victim is not None:
            os.kill(self._pids[victim], signal.SIGKILL)
            touched |= falls_with(victim)
        await self._service.start()
        self._restarts.clear()
        what = f"SIGKILL supervisor{'' if victim is None else f' and {victim}'}, and a new one"
        await self._settle(what, began, touched)

    async def _restart(self, entry: str) -> None:
        began = time.monotonic()
        why = await self._service.rolling_restart(entry)
        touched = frozenset(id_ for id_ in self._pids if entry_of(id_) == entry)
        self._restarts.update(touched)
        await self._settle(f"rolling restart of {entry}", began, touched, why)

    async def _apply(self, what: str, text: str, entries: set[str]) -> None:
        began = time.monotonic()
        why = await self._service.apply(text)
        before, self._expected = self._expected, ids(text)
        touched = frozenset(id_ for id_ in before | self._expected if entry_of(id_) in entries)
        self._restarts.update(touched & before & self._expected)
        for id_ in before - self._expected:
            self._restarts.pop(id_, None)
        await self._settle(what, began, touched, why)
        if left := await self._service.would_change(text):
            self.steps.append(Step(what, 0.0, [f"applied, and still different: {left}"]))

    def _note_fall(self, victim: str, began: float) -> None:
        if entry_of(victim) == "ingress":
            self.ingress_fell.append((began, time.monotonic()))

    async def _settle(
        self, what: str, began: float, touched: frozenset[str], why: str = ""
    ) -> None:
        """Wait for rest, then look. `touched`: who must have another process; nobody else may."""
        service = self._service
        wrong = [why] if why else []
        status = await service.status()
        while not self._rests(status, touched):
            if time.monotonic() - began > PATIENCE_S:
                wrong.append(f"not at rest after {PATIENCE_S:g} s")
                break
            await asyncio.sleep(LOOK_EVERY_S)
            status = await service.status()
        took_s = time.monotonic() - began
        # What has just ended may wait to be reaped for a moment.
        await asyncio.sleep(SETTLE_S)
        status = await service.status()
        wrong += violations(
            status, service.registered, service.layout.state, self._expected, self._restarts
        )
        pids = pids_of(status)
        wrong += [
            f"{id_} has another process" for id_ in self._changed(pids) - touched if self._pids
        ]
        self._pids = pids
        self.steps.append(Step(what, took_s, wrong))
        print(f"  {'✗' if wrong else '✓'} {what:<56} at rest after {took_s:5.2f} s", flush=True)
        for line in wrong:
            print(f"      {line}", flush=True)

    def _rests(self, status: Status, touched: frozenset[str]) -> bool:
        pids = pids_of(status)
        return (
            pids.keys() == self._expected
            and at_rest(status, self._service.registered)
            and touched & pids.keys() <= self._changed(pids)
        )

    def _changed(self, pids: dict[str, int]) -> set[str]:
        """Who has another process than before, or had none."""
        return {id_ for id_, pid in pids.items() if self._pids.get(id_) != pid}


def pids_of(status: Status) -> dict[str, int]:
    """The process of each child that has one."""
    return {id_: row.pid for id_, row in rows_of(status).items() if row.pid is not None}


def ids(text: str) -> frozenset[str]:
    """Of everything that a file's text brings up."""
    topology = read_text(text, Path("storm.yaml"), environ={}).topology
    return frozenset(
        [
            *PLANE,
            *(instance.name for instance in topology.node_instances()),
            *(
                f"{understudies_of(node.name)}/{number}"
                for node in topology.nodes()
                for number in node.understudies()
            ),
        ]
    )


def judged(outcomes: Outcomes, ingress_fell: list[tuple[float, float]]) -> list[str]:
    """What of the requests' outcomes must not be."""
    wrong = [
        f"{outcomes.counts[kind]} requests {kind}"
        for kind in ("wrong", "hung")
        if outcomes.counts[kind]
    ]
    unexplained = [
        (began, ended)
        for began, ended in outcomes.cuts
        if not any(began <= until and ended >= since for since, until in ingress_fell)
    ]
    if unexplained:
        wrong.append(f"{len(unexplained)} connections lost although no ingress fell")
    if not outcomes.counts["complete"]:
        wrong.append("no request was served")
    return wrong


async def run(kills: int, stops: int, seed: int) -> list[str]:
    """Go through the storm; return everything that was wrong."""
    with tempfile.TemporaryDirectory(prefix="storm") as directory:
        base, port = Path(directory), free_ports(1)[0]
        text = TOPOLOGY.format(models=MODELS, port=port)
        topology = base / "storm.yaml"
        topology.write_text(text)
        service = Service(topology, base)
        await service.start()
        storm = Storm(service, text, random.Random(seed))
        try:
            async with Clients(f"http://127.0.0.1:{port}") as clients:
                await storm.go(kills=kills, stops=stops)
        finally:
            code = await service.stop()
        wrong = [f"{step.what}: {line}" for step in storm.steps for line in step.wrong]
        wrong += [f"the supervisor's exit code was {code}"] if code else []
        wrong += left_over(service.layout.state)
        wrong += judged(clients.outcomes, storm.ingress_fell)
        if wrong:
            kept = Path(tempfile.mkdtemp(prefix="storm-failed")) / "state"
            shutil.copytree(base, kept, ignore=shutil.ignore_patterns("*.sock"))
            print(f"logs and journal are kept in {kept}")
    tell(storm.steps, clients.outcomes)
    return wrong


def tell(steps: list[Step], outcomes: Outcomes) -> None:
    """The summary."""
    times: dict[str, list[float]] = {}
    for step in steps:
        times.setdefault(step.what.partition(" ")[0], []).append(step.took_s)
    print("\nto rest, in seconds        median     max   times")
    for what, took in times.items():
        print(f"  {what:<22} {statistics.median(took):8.2f} {max(took):7.2f} {len(took):7}")
    told = ", ".join(f"{count} {kind}" for kind, count in outcomes.counts.most_common())
    print(f"requests: {told}; the slowest took {outcomes.slowest_s:.2f} s")
    for line in outcomes.failures:
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, metavar="N")
    parser.add_argument("--stops", type=int, default=4, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the order of victims")
    arguments = parser.parse_args()
    logs.configure(level="error")  # that etcd was away is no news here
    wrong = asyncio.run(run(arguments.kills, arguments.stops, arguments.seed))
    print("\n".join(["", *wrong, f"{len(wrong)} violations" if wrong else "it stands"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
