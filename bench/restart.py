"""How long a killed actor is away: from SIGKILL to its successor's first token.

    python -m bench.restart                        30 kills each of the roles of disagg.yaml, and of
                                                   its workers with an understudy each (7 min)
    python -m bench.restart --targets generation/0 --standby --kills 100 --json restart.json

Starts a supervisor of its own and kills one process after another; each time the service must
answer again before the next one. The marks, in milliseconds after the kill:

    seen        the supervisor knows that the process has ended
    taken       the successor's process exists: it was forked, or an understudy was promoted
    ready       it has said that it is ready
    registered  others can read so in etcd
    first token of a request that a client sends until one is answered
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from actors.runtime.process import NodeSpec
from actors.runtime.registry.base import Listed, Observation, Put, State
from actors.runtime.registry.etcd import EtcdRegistry
from supervisor.layout import Layout
from supervisor.services import free_ports

MARKS = ("seen", "taken", "ready", "registered", "first token")
DEADLINE_S = 30.0
STABLE_S = 5.5
"""Between two kills of one target: it was stable for `backoff.reset_after` (5 s), and is restarted
at once. One that falls again sooner waits longer each time, which is not what is measured here."""
TARGETS = ("generation/0", "context/0", "router/0", "preprocessor/0", "ingress/0")
WITH_STANDBY = ("generation/0", "context/0")
"""Those that are killed once more with an understudy behind them."""

Results = dict[str, list[dict[str, float]]]


class Told(msgspec.Struct):
    """The part of a supervisor's events that is of interest here."""

    event: str
    id: str = ""
    pid: int = 0
    understudy: str = ""
    urls: list[str] = []
    models: list[str] = []


class Service:
    """A supervisor of our own: its events, its registry, and a client."""

    def __init__(self, layout: Layout, registry: EtcdRegistry, url: str, model: str) -> None:
        self.pids: dict[str, int] = {}
        self.marks: dict[str, float] = {}
        self.promotions = 0
        self.complete = asyncio.Event()
        self._layout = layout
        self._registry = registry
        self._url = url
        self._model = model
        self._target = ""
        self._seen = asyncio.Event()
        self.understudies: set[str] = set()
        """Those that have to be loaded before anything is killed."""
        self._loaded: set[str] = set()
        self._news = asyncio.Event()

    def told(self, told: Told) -> None:
        """An event of the supervisor, as it comes in."""
        if told.event in {"ChildStarting", "ChildPromoted"}:
            self.pids[told.id] = told.pid
        mark = {
            "ChildEnded": "seen",
            "ChildStarting": "taken",
            "ChildPromoted": "taken",
            "ChildReady": "ready",
        }
        if told.id == self._target and told.event in mark:
            self._mark(mark[told.event])
        if told.event == "ChildPromoted":
            self.promotions += 1
            self._loaded.discard(told.understudy)
        elif told.event == "ChildReady":
            self._loaded.add(told.id)
        self._news.set()

    def observed(self, observation: Observation) -> None:
        """A change in the registry, as it comes in."""
        if isinstance(observation, Listed) or not isinstance(observation, Put):
            return
        entry = observation.entry
        if entry.name == self._target and entry.state is State.READY and "seen" in self.marks:
            self._mark("registered")

    async def kill(self, target: str) -> dict[str, float]:
        """Kill it, and return the marks in milliseconds."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.understudies <= self._loaded:
                self._news.clear()
                await self._news.wait()
        self._target = target
        self.marks.clear()
        self.complete.clear()
        self._seen.clear()
        pid = self.pids[target]
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(DEADLINE_S):
            # A request that is answered before the kill has been seen says nothing.
            await self._seen.wait()
            await self._first_token()
            await self.complete.wait()
        return {mark: (self.marks[mark] - killed) * 1000 for mark in MARKS}

    async def _first_token(self) -> None:
        body = {
            "model": self._model,
            "prompt": f"The capital of France {time.monotonic_ns()} is",
            "max_tokens": 4,
            "stream": True,
            "temperature": 0,
        }
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                try:
                    async with session.post(f"{self._url}/v1/completions", json=body) as response:
                        if (
                            response.status == 200
                            and b"data: {" in await response.content.readany()
                        ):
                            self._mark("first token")
                            return
                except aiohttp.ClientError:
                    pass  # the ingress is the one that was killed
                await asyncio.sleep(0.002)

    def _mark(self, mark: str) -> None:
        self.marks.setdefault(mark, time.monotonic())
        if mark == "seen":
            self._seen.set()
        if len(self.marks) == len(MARKS):
            self.complete.set()


@asynccontextmanager
async def running(topology: Path, state: Path, sets: Sequence[str] = ()) -> AsyncIterator[Service]:
    """A supervisor in a process of its own, up and answering."""
    environ = {**os.environ, "UNDERSTUDY_STATE_DIR": str(state)}
    command = (sys.executable, "-m", "supervisor", "up", str(topology), "--namespace", "restart")
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--set", "supervision.intensity=100000", "--port", str(free_ports(1)[0])),
        *(word for one in sets for word in ("--set", one)),
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    pids: dict[str, int] = {}
    try:
        url, model = "", ""
        while not url:
            line = await process.stderr.readline()
            if not line:
                raise SystemExit("the supervisor ended before it was ready")
            said = msgspec.json.decode(line)
            if said.get("event") == "child_starting":
                pids[said["child"]] = said["pid"]
            if said.get("event") == "ready":
                url, model = said["urls"][0], said["models"][0]
        rest = asyncio.create_task(_discard(process.stderr))
        layout = Layout(state / "restart", environ)
        spec = msgspec.json.decode(layout.node_spec("router/0").read_bytes(), type=NodeSpec)
        registry = EtcdRegistry(spec.etcd, "restart")
        service = Service(layout, registry, url, model)
        service.pids = pids
        await registry.start(service.observed)
        events = asyncio.create_task(_listen(layout, service))
        await service._first_token()  # noqa: SLF001 - the warm-up is not measured
        yield service
        events.cancel()
        await registry.close()
        process.send_signal(signal.SIGTERM)
        await process.wait()
        rest.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


async def _listen(layout: Layout, service: Service) -> None:
    reader, writer = await asyncio.open_unix_connection(str(layout.socket))
    # What has happened is told again: understudies may be loaded by now.
    writer.write(b'{"call":"Events","recent":100}\n')
    await reader.readline()
    while line := await reader.readline():
        service.told(msgspec.json.decode(line, type=Told))


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def table(results: Results) -> str:
    """Median and 95th percentile of each mark, a row a target."""
    head = f"{'p50 / p95 / max, ms':<22}" + "".join(f"{mark:>22}" for mark in MARKS)
    rows = [head]
    for target, kills in results.items():
        cells = ""
        for mark in MARKS:
            values = [kill[mark] for kill in kills]
            numbers = (statistics.median(values), percentile(values, 0.95), max(values))
            cells += f"{'/'.join(f'{number:.0f}' for number in numbers):>22}"
        rows.append(f"{target:<22}{cells}")
    return "\n".join(rows)


async def measure(
    topology: Path, targets: Sequence[str], kills: int, *, standby: bool = False
) -> Results:
    """Kill each target so many times, in turns, so that a noisy minute hits all alike."""
    names = {target: f"{target} standby" if standby else target for target in targets}
    results: Results = {name: [] for name in names.values()}
    entries = {target.partition("/")[0] for target in targets} if standby else set()
    with tempfile.TemporaryDirectory() as state:
        sets = [f"children.{entry}.standby=1" for entry in entries]
        async with running(topology, Path(state), sets) as service:
            service.understudies = {f"{entry}/standby/0" for entry in entries}
            for number in range(kills):
                round_ends = time.monotonic() + STABLE_S
                for target, name in names.items():
                    results[name].append(await service.kill(target))
                await asyncio.sleep(max(0.0, round_ends - time.monotonic()))
                if sys.stderr.isatty():
                    print(f"\r{number + 1} of {kills}", end="", file=sys.stderr, flush=True)
            if standby and service.promotions != kills * len(targets):
                raise SystemExit(f"only {service.promotions} of the kills were stood in for")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parent.parent / "topologies" / "disagg.yaml"
    parser.add_argument("--topology", type=Path, default=default)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="ACTOR")
    parser.add_argument(
        "--standby", action="store_true", help="only with an understudy for each of the targets"
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every kill's marks")
    arguments = parser.parse_args()
    topology, targets, kills = arguments.topology, arguments.targets, arguments.kills
    results: Results = {}
    if not arguments.standby:
        results |= asyncio.run(measure(topology, targets, kills))
        targets = [target for target in targets if target in WITH_STANDBY]
    if targets:
        results |= asyncio.run(measure(topology, targets, kills, standby=True))
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
