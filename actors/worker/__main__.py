"""Workers as ranks of an MPI program.

    mpirun -n WORLD_SIZE python -m actors.worker NODE.json ...

Each file describes a node, as a supervisor writes it to `nodes/` of its state directory (a
`NodeSpec` of `actors.runtime.process`), and each has as many consecutive ranks as its engine's
`tensor_parallel_size` says, in the order given; WORLD_SIZE is their sum. The first rank of a node
is the worker, as if it had been started alone; the others compute with it.

Without mpirun, a node of one rank is simply run.

    python -m actors.worker --world SOCKET RANKS ...

is what a supervisor starts for nodes that share one mpirun: the leaders ask it over the socket
which nodes they are.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from actors.engines.base import EngineFailed
from actors.engines.transformers.parallel import world
from actors.runtime import process
from actors.runtime.errors import UNREADABLE
from actors.runtime.process import EXIT_CONFIGURATION, EXIT_FAILED, NodeSpec
from actors.worker import joining
from actors.worker.options import WorkerOptions, ranks_of

FINALIZE_S = 10
"""For the other ranks to leave MPI too; then this one leaves without them."""
_PR_SET_PDEATHSIG = 1


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
            return _join_world(Path(argv[1]), [int(size) for size in argv[2:]])
        sizes = [_ranks(Path(file)) for file in argv]
    except (OSError, ValueError, IndexError, *UNREADABLE) as error:
        print(f"{' '.join(argv)}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    if not world.started_by_mpi():
        return _run_alone(argv, sizes)
    return _as_rank(sizes, lambda place: process.main([argv[place.server]]), leave_together=True)


def _ranks(file: Path) -> int:
    """How many ranks the node in a file has."""
    spec = msgspec.json.decode(file.read_bytes(), type=NodeSpec)
    return max(
        (
            ranks_of(msgspec.json.decode(actor.options, type=WorkerOptions))
            for actor in spec.actors
            if actor.actor.startswith("actors.worker.")
        ),
        default=1,
    )


def _run_alone(files: list[str], sizes: list[int]) -> int:
    if sizes != [1]:
        print(f"{sum(sizes)} ranks are needed: mpirun -n {sum(sizes)} ...", file=sys.stderr)
        return EXIT_CONFIGURATION
    return process.main(files)


def _join_world(socket: Path, sizes: list[int]) -> int:
    # All at once, before anybody waits for it.
    import actors.engines.transformers.model  # noqa: F401, PLC0415 - torch

    return _as_rank(sizes, lambda place: joining.lead(socket, place.server), leave_together=False)


def _as_rank(sizes: list[int], lead: joining.Lead, *, leave_together: bool) -> int:
    """Lead or follow. `leave_together`: end MPI with all ranks, or just go, as one must whose
    neighbours serve on; with 0 then, as mpirun would count a failure against them."""
    _die_with_parent()
    try:
        rank, size = world.place()
        pids = world.share_pids()
        if size != sum(sizes):
            print(f"WORLD_SIZE is {sum(sizes)}, but mpirun started {size} ranks", file=sys.stderr)
            return EXIT_CONFIGURATION
        place = place_of(rank, sizes)
        if rank == place.first:
            code = lead(place)
            world.dismiss_followers(place.ranks)
        else:
            # Only here: a leader of one rank may have an engine that needs none of it.
            from actors.engines.transformers.parallel.follower import follow  # noqa: PLC0415

            code = follow(
                place.first,
                place.ranks,
                pids[place.first],
                left_behind=EXIT_FAILED if leave_together else 0,
            )
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


def _die_with_parent() -> None:
    """mpirun may be killed, and its ranks with it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
