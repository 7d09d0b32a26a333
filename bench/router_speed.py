"""What a routing decision costs: hash, look up, weigh, and count what was placed.

    python -m bench.router_speed            all sizes (3 minutes, 3 GB of memory)
    python -m bench.router_speed --quick    up to 100 k blocks

Nothing is sent: the messages around a decision are `bench.load`'s business. Each prompt has half of
its blocks in the index, at one to three of the workers. `hash` is XXH3 over the prompt's blocks,
the first time and again (`known`: as in the next turn of a conversation); `place` is everything
after it. Medians, and p99 of `place` by the clock and in CPU time of the thread: what the first has
more is the machine's, other processes in between. `gc` is the longest garbage collection.
Memory is what the process grew by while the index was filled.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from actors.kv.hashing import PrefixHasher, sequence_hashes
from actors.messages.cache import Load, Removed, Stored
from actors.messages.cards import WorkerCard
from actors.messages.events import Inventory, Report
from actors.messages.key import RequestKey
from actors.router.affinity import Sessions
from actors.router.index import BlockIndex
from actors.router.options import RouterOptions
from actors.router.placement import Placer, make_ask, placements, predict
from actors.router.roster import Roster
from actors.router.strategies import make_strategy
from actors.runtime.address import Address
from actors.runtime.registry.base import Entry, State

BLOCK = 16
MODEL = "m"
CHAIN = 64
"""Blocks that follow each other in the filled index."""
SEEN_BLOCKS = 1_000_000
"""With fewer, the growth of the process says nothing of the index."""
RESULTS = Path(__file__).parent / "results"


class Speed(msgspec.Struct):
    """One size."""

    blocks: int
    workers: int
    prompt_tokens: int
    hash_us: float
    known_us: float
    """Hashing it again."""
    place_us: float
    place_p99_us: float
    place_cpu_us: float
    place_cpu_p99_us: float
    gc_runs: int
    gc_longest_us: float
    decisions_per_s: float
    """Hashing included."""


class Memory(msgspec.Struct):
    blocks: int
    workers: int
    bytes_per_block: float | None
    events_stored_per_s: float
    """Blocks a second, in events of 64."""
    events_removed_per_s: float
    sweep_step_ms: float
    """The longest step of forgetting a lost worker."""


class Results(msgspec.Struct):
    decisions: list[Speed]
    memory: list[Memory]
    seconds: float


def _entry(instance: int, blocks_total: int) -> Entry:
    card = WorkerCard(
        model=MODEL,
        tokenizer="",
        duty="aggregated",
        engine="simulated",
        max_context_tokens=1 << 20,
        block_tokens=BLOCK,
        blocks_total=blocks_total,
        max_running=256,
        started_at=0.0,
        publishes_cache_events=True,
    )
    return Entry(
        role="aggregated",
        instance=instance,
        incarnation=1,
        state=State.READY,
        node="n",
        host="h",
        pid=1,
        meta=msgspec.Raw(msgspec.json.encode(card)),
    )


class Times(NamedTuple):
    """Of one decision, in seconds."""

    hash: float
    known: float
    place: float
    cpu: float
    """Of `place`."""


class Setting:
    """A roster with so many workers and indexed blocks."""

    def __init__(self, workers: int, blocks: int) -> None:
        self.options = RouterOptions(index_blocks=max(blocks * 2, 1_000_000))
        self.index = BlockIndex(self.options.index_blocks)
        self.roster = Roster(self.index, self.options.cost, uses_index=True)
        self.rng = random.Random(workers + blocks)
        self.addresses: list[Address] = []
        self._numbers = [0] * workers
        for instance in range(workers):
            address = self.roster.joined(_entry(instance, 2 * blocks), 0.0)
            assert address is not None
            self.addresses.append(address)
            self.roster.inventory(Inventory(address, 0, 0, last=True, blocks=(), load=Load()), 0.0)
        strategy = make_strategy("kv", self.index, self.options.cost, self.rng)
        sessions = Sessions(self.options.affinity)
        self.placer = Placer(self.options, self.index, strategy, sessions)

    def report(self, instance: int, event: Stored | Removed, load: Load) -> None:
        """One worker's next report."""
        self._numbers[instance] += 1
        address = self.addresses[instance]
        gap = self.roster.report(Report(address, self._numbers[instance], load, 0.0, (event,)), 0.0)
        assert not gap

    def fill(self, blocks: int) -> float:
        """Store random chains up to so many blocks; blocks a second."""
        events = [
            tuple(self.rng.getrandbits(64) for _ in range(CHAIN))
            for _ in range(max(1, min(blocks, 500_000) // CHAIN))
        ]
        stored, spent = 0, 0.0
        while stored < blocks:
            began = time.thread_time()
            for chain in events:
                self.report(self.rng.randrange(len(self.addresses)), Stored(None, chain), Load())
            spent += time.thread_time() - began
            stored += len(events) * CHAIN
            if stored < blocks:
                # Others of the same kind, made outside of the time that is measured.
                offset = self.rng.getrandbits(63) | 1
                events = [tuple((one + offset) % 2**64 for one in chain) for chain in events]
        return stored / spent

    def prompts(self, count: int, tokens: int) -> list[bytes]:
        """Prompts whose first half some workers hold; loads of all workers at random."""
        made = []
        for number in range(count):
            prompt = self.rng.randbytes(4 * tokens)
            known = sequence_hashes(prompt[: 2 * tokens], BLOCK)
            for instance in self.rng.sample(range(len(self.addresses)), self.rng.randint(1, 3)):
                load = Load(running=4, waiting_tokens=self.rng.randrange(2000), blocks_used=number)
                self.report(instance, Stored(None, tuple(known)), load)
            made.append(prompt)
        return made

    def decide(self, prompts: list[bytes]) -> Iterator[Times]:
        """What each took."""
        ingress = Address("ingress", 0, 1)
        site = self.roster.site(MODEL)
        hasher = PrefixHasher()
        for number, prompt in enumerate(prompts):
            began = time.perf_counter()
            ask = make_ask(prompt, BLOCK, hasher=hasher)
            hashed = time.perf_counter()
            make_ask(prompt, BLOCK, hasher=hasher)
            again, cpu = time.perf_counter(), time.thread_time()
            decision = self.placer.place(site, MODEL, ask, 0.0)
            key = RequestKey(ingress, number, 0)
            for placement in placements(key, ask, decision):
                self.roster.place(placement, 0.0)
            predict(self.index, ask, decision)
            cpu = time.thread_time() - cpu
            yield Times(hashed - began, again - hashed, time.perf_counter() - again, cpu)
            self.roster.unplace(decision.computing.member.address, key)


class Collections:
    """Garbage collections while it is entered."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.runs = 0
        self._began = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, _: object) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.runs += 1
            self.longest_s = max(self.longest_s, time.perf_counter() - self._began)


def measure_decisions(setting: Setting, blocks: int, tokens: int) -> Speed:
    """Decisions for prompts of one length."""
    count = max(20, min(2000, 2_000_000 // tokens))
    prompts = setting.prompts(count, tokens)
    with Collections() as collections:
        times = list(setting.decide(prompts))
    placing = sorted(one.place for one in times)
    cpu = sorted(one.cpu for one in times)
    late = int(len(times) * 0.99)
    return Speed(
        blocks=blocks,
        workers=len(setting.addresses),
        prompt_tokens=tokens,
        hash_us=statistics.median(one.hash for one in times) * 1e6,
        known_us=statistics.median(one.known for one in times) * 1e6,
        place_us=statistics.median(placing) * 1e6,
        place_p99_us=placing[late] * 1e6,
        place_cpu_us=statistics.median(cpu) * 1e6,
        place_cpu_p99_us=cpu[late] * 1e6,
        gc_runs=collections.runs,
        gc_longest_us=collections.longest_s * 1e6,
        decisions_per_s=len(times) / sum(one.hash + one.place for one in times),
    )


def measure_memory(setting: Setting, blocks: int) -> Memory:
    """Fill the index; then take some out, and lose a worker."""
    gc.collect()
    before = _resident()
    stored_per_s = setting.fill(blocks)
    gc.collect()
    grown = _resident() - before
    chains = [tuple(setting.rng.getrandbits(64) for _ in range(CHAIN)) for _ in range(200)]
    for chain in chains:
        setting.report(0, Stored(None, chain), Load())
    began = time.thread_time()
    for chain in chains:
        setting.report(0, Removed(chain), Load())
    removed_per_s = len(chains) * CHAIN / (time.thread_time() - began)
    seen = grown / blocks if blocks >= SEEN_BLOCKS else None
    return Memory(blocks, len(setting.addresses), seen, stored_per_s, removed_per_s, 0.0)


def lose_a_worker(setting: Setting) -> float:
    """The longest step of sweeping, in milliseconds."""
    setting.roster.down(setting.addresses[-1])
    longest, more = 0.0, True
    while more:
        began = time.thread_time()
        more = setting.index.sweep()
        longest = max(longest, time.thread_time() - began)
    return longest * 1000


def _resident() -> int:
    with Path("/proc/self/statm").open(encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def _shown(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="up to 100 k blocks")
    parser.add_argument("--most", type=int, default=10_000_000, help="blocks; %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "router_speed.json")
    arguments = parser.parse_args()
    began = time.monotonic()
    results = Results([], [], 0.0)
    most = 100_000 if arguments.quick else arguments.most
    sizes = [size for size in (1_000, 100_000, 1_000_000, 10_000_000) if size <= most]
    print(
        "    blocks workers  prompt   hash us  known us  place us    p99 us  cpu p50   cpu p99  "
        "longest gc  decisions/s"
    )
    for blocks in sizes:
        for workers in (8, 64, 1024):
            setting = Setting(workers, blocks)
            memory = measure_memory(setting, blocks)
            for tokens in (1_000, 100_000):
                speed = measure_decisions(setting, blocks, tokens)
                results.decisions.append(speed)
                print(
                    f"{blocks:10d} {workers:7d} {tokens:7d} {speed.hash_us:9.1f} "
                    f"{speed.known_us:9.1f} {speed.place_us:9.1f} {speed.place_p99_us:9.1f} "
                    f"{speed.place_cpu_us:8.1f} {speed.place_cpu_p99_us:9.1f} "
                    f"{speed.gc_longest_us:11.1f} {speed.decisions_per_s:12.0f}",
                    flush=True,
                )
            memory.sweep_step_ms = lose_a_worker(setting)
            results.memory.append(memory)
            print(
                f"{'':18s} {_shown(memory.bytes_per_block)} bytes a block, "
                f"{memory.events_stored_per_s / 1e6:.2f} M blocks/s stored, "
                f"{memory.events_removed_per_s / 1e6:.2f} M removed, "
                f"sweep step {memory.sweep_step_ms:.1f} ms",
                flush=True,
            )
            del setting
    results.seconds = time.monotonic() - began
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    print(f"{results.seconds:.0f} s; {arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
