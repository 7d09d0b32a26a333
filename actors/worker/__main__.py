"""Workers as ranks of an MPI program.

    mpirun -n WORLD_SIZE python -m actors.worker NODE.json ...

Each file describes a node, as a supervisor writes it to `nodes/` of its state directory (a
`NodeSpec` of `actors.runtime.process`), and each has as many consecutive ranks as its engine's
parallel sizes say, in the order given; WORLD_SIZE is their sum. The first rank of a node is the
worker, as if it had been started alone; the others compute with it. `mpirun -n WORLD_SIZE supervise
ranks TOPOLOGY` makes the files from a topology and starts this.

Without mpirun, a node of one rank is simply run.

    python -m actors.worker --world SOCKET ENGINE:RANKS ...

is what a supervisor starts for nodes that share one mpirun: the leaders ask it over the socket
which nodes they are. ENGINE is the kind of each node's engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from actors.engines import world
from actors.engines.base import EngineFailed
from actors.engines.tensorrt_llm.options import KIND as TENSORRT_LLM
from actors.engines.tensorrt_llm.ranks import RANKS_VARIABLE
from actors.runtime import process
from actors.runtime.errors import UNREADABLE
from actors.runtime.process import EXIT_CONFIGURATION, EXIT_FAILED, NodeSpec
from actors.worker import joining
from actors.worker.engines import engine_name, ranks_of
from actors.worker.options import WorkerOptions

FINALIZE_S = 10
"""For the other ranks to leave MPI too; then this one leaves without them."""
_PR_SET_PDEATHSIG = 1


class Server(NamedTuple):
    """One server of the program."""

    engine: str
    """Its kind, as topologies call it."""
    ranks: int


class Place(NamedTuple):
    """Which of the servers this rank belongs to."""

    server: int
    first: int
    """The leader's rank."""
    ranks: int


def place_of(rank: int, sizes: Sequence[int]) -> Place:
    """Where a rank belongs: consecutive ranks make up a server, in the order given.

    Raises ValueError for a rank beyond the last server's.
    """
    first = 0
    for server, size in enumerate(sizes):
        if rank < first + size:
            return Place(server, first, size)
        first += size
    raise ValueError(f"rank {rank} is beyond the {first} ranks of {len(sizes)} servers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Be one rank; return the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in {"-h", "--help"}:
        print(__doc__, file=sys.stderr)
        return 0 if argv else EXIT_CONFIGURATION
    try:
        if argv[0] == "--world":
            return _join_world(Path(argv[1]), [_parse(text) for text in argv[2:]])
        servers = [_server(Path(file)) for file in argv]
    except (OSError, ValueError, IndexError, *UNREADABLE) as error:
        print(f"{' '.join(argv)}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if not world.started_by_mpi():
        return _run_alone(argv, servers)
    return _as_rank(servers, lambda place: process.main([argv[place.server]]), leave_together=True)


def _parse(text: str) -> Server:
    engine, _, ranks = text.partition(":")
    return Server(engine, int(ranks))


def _server(file: Path) -> Server:
    """What the node in a file is, by the engine that has most ranks."""
    spec = msgspec.json.decode(file.read_bytes(), type=NodeSpec)
    base_dir = Path(spec.base_dir)
    found = [
        Server(engine_name(options.engine), ranks_of(options, base_dir))
        for actor in spec.actors
        if actor.actor.startswith("actors.worker.")
        for options in [msgspec.json.decode(actor.options, type=WorkerOptions)]
    ]
    return max(found, key=lambda server: server.ranks, default=Server("", 1))


def _run_alone(files: list[str], servers: list[Server]) -> int:
    size = sum(server.ranks for server in servers)
    if len(servers) != 1 or size != 1:
        print(f"{size} ranks are needed: mpirun -n {size} ...", file=sys.stderr)
        return EXIT_CONFIGURATION
    return process.main(files)


def _join_world(socket: Path, servers: list[Server]) -> int:
    if any(server.engine == "transformers" for server in servers):
        # All at once, before anybody waits for it.
        import actors.engines.transformers.model  # noqa: F401, PLC0415 - torch

    return _as_rank(servers, lambda place: joining.lead(socket, place.server), leave_together=False)


def _as_rank(servers: list[Server], lead: joining.Lead, *, leave_together: bool) -> int:
    """Lead or follow. `leave_together`: end MPI with all ranks, or just go, as one must whose
    neighbours serve on; with 0 then, as mpirun would count a failure against them."""
    _die_with_parent()
    left_behind = EXIT_FAILED if leave_together else 0
    try:
        rank, size = world.place()
        pids = world.share_pids()
        expected = sum(server.ranks for server in servers)
        if size != expected:
            print(f"WORLD_SIZE is {expected}, but mpirun started {size} ranks", file=sys.stderr)
            return EXIT_CONFIGURATION
        place = place_of(rank, [server.ranks for server in servers])
        engine = servers[place.server].engine
        if rank == place.first:
            code = _lead(engine, place, pids, lead, left_behind)
        else:
            code = _follow(engine, place, pids[place.first], left_behind)
    except EngineFailed as error:
        print(error, file=sys.stderr)
        code = EXIT_CONFIGURATION
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 0 and leave_together:
        signal.alarm(FINALIZE_S)
        world.finalize()
        signal.alarm(0)
    # Not by way of the interpreter's end: a thread of the engine's may hang in a sum for ever.
    os._exit(code if leave_together else 0)


def _lead(engine: str, place: Place, pids: list[int], lead: joining.Lead, left_behind: int) -> int:
    together: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if engine == TENSORRT_LLM:
        os.environ[RANKS_VARIABLE] = str(place.ranks)
        # It may wait for ever for a rank that is gone.
        together = world.ending_with(pids[place.first + 1 : place.first + place.ranks], left_behind)
    with together:
        code = lead(place)
    world.dismiss_followers(place.ranks)
    return code


def _follow(engine: str, place: Place, leader_pid: int, left_behind: int) -> int:
    # Each only here: a leader of one rank may have an engine that needs none of it.
    if engine == TENSORRT_LLM:
        from actors.engines.tensorrt_llm import ranks  # noqa: PLC0415

        with world.ending_with([leader_pid], left_behind):
            return ranks.follow(place.first, place.ranks, leader_pid)
    from actors.engines.transformers.parallel.follower import follow  # noqa: PLC0415

    return follow(place.first, place.ranks, leader_pid, left_behind=left_behind)


def _die_with_parent() -> None:
    """mpirun may be killed, and its ranks with it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
