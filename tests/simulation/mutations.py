"""Breaks the code in known ways, in a copy, and shows what notices: a seed, or one of the tests for
what seeds do not reach.

python -m tests.simulation.mutations                    all of them
python -m tests.simulation.mutations --only lease       those with this in their name
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).parent.parent.parent
SEEDS = 250
COPIED = ("actors", "supervisor", "tests", "topologies", "pyproject.toml")
DIRECTED = ("tests/simulation/test_lives.py", "tests/simulation/test_names.py")


class Mutation(NamedTuple):
    name: str
    file: str
    old: str
    new: str


MUTATIONS = (
    Mutation(
        "the epoch of a chunk is not looked at",
        "actors/ingress/session/machine.py",
        "if chunk.epoch != self.epoch:",
        "if chunk.epoch > self.epoch:",
    ),
    Mutation(
        "the short way of a token does not look at its epoch",
        "actors/ingress/session/machine.py",
        "!= len(delivered) or epoch != self.epoch:",
        "!= len(delivered):",
    ),
    Mutation(
        "the short way of a token delivers a repeat again",
        "actors/ingress/session/machine.py",
        "offset + self._epoch_start != len(delivered)",
        "offset + self._epoch_start > len(delivered)",
    ),
    Mutation(
        "a repeated token is delivered again",
        "actors/ingress/session/machine.py",
        "tokens = chunk.tokens[repeated:]",
        "tokens = chunk.tokens",
    ),
    Mutation(
        "a gap is not seen",
        "actors/ingress/session/machine.py",
        "if chunk.offset > expected:",
        "if chunk.offset > expected + 1000:",
    ),
    Mutation(
        "a replay forgets its last token",
        "actors/ingress/session/machine.py",
        "return [Submit(self.epoch, tuple(self.delivered))]",
        "return [Submit(self.epoch, tuple(self.delivered[:-1]))]",
    ),
    Mutation(
        "a replay counts offsets from the first attempt",
        "actors/ingress/session/machine.py",
        "self._epoch_start = len(self.delivered)",
        "self._epoch_start = 0",
    ),
    Mutation(
        "a replay asks for all tokens anew",
        "actors/ingress/actor.py",
        "left = choice.sampling.max_tokens - len(action.delivered)",
        "left = choice.sampling.max_tokens",
    ),
    Mutation(
        "the fall of a worker is not heard",
        "actors/ingress/session/machine.py",
        "if self.phase is Phase.ASSIGNED and mine:",
        "if self.phase is Phase.SUBMITTED and mine:",
    ),
    Mutation(
        "a cancelled request goes on holding its job",
        "actors/worker/actor.py",
        "self._engine.cancel(self._jobs.drop(job).id)",
        "self._engine.cancel(job.id)",
    ),
    Mutation(
        "Fetched frees nothing",
        "actors/worker/actor.py",
        "self._engine.release(job.id)",
        "self._engine.progress",
    ),
    Mutation(
        "any incarnation is taken for one's own",
        "actors/runtime/cell.py",
        "if incarnation not in {0, self.entry.incarnation}:",
        "if incarnation < 0:",
    ),
    Mutation(
        "a node that lost its lease does not register again",
        "actors/runtime/registry/etcd.py",
        "for name in list(self._mine):",
        "for name in ():",
    ),
    Mutation(
        "incarnations do not outlive etcd's data",
        "actors/runtime/registry/etcd.py",
        "incarnation=max(after, self._ticks())",
        "incarnation=after",
    ),
    Mutation(
        "etcd does not keep the last life of a name",
        "actors/runtime/registry/etcd.py",
        "if place.last < entry.incarnation:",
        "if place.last < 0:",
    ),
    Mutation(
        "a child is blamed for a plane that is away",
        "supervisor/tree/lifecycle.py",
        "away = self.patient and kind is Kind.UNAVAILABLE",
        "away = False",
    ),
    Mutation(
        "the directory goes back to older lives",
        "actors/runtime/directory.py",
        "if known.incarnation > entry.incarnation:",
        "if known.incarnation > entry.incarnation + 1_000_000:",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.mutations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds are tried of each")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--only", default="", help="a part of the name")
    options = parser.parse_args()
    missed = 0
    print("| broken | noticed |\n|---|---|")
    for mutation in MUTATIONS:
        if options.only in mutation.name:
            found = _try(mutation, options.first, options.seeds)
            missed += not found
            print(f"| {mutation.name} | {found or 'NOT'} |", flush=True)
    return 1 if missed else 0


def _try(mutation: Mutation, first: int, seeds: int) -> str:
    """What notices; empty when nothing does."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        for part in COPIED:
            source = HOUSE / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / part)
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8")
        assert mutation.old in text, f"{mutation.file} has changed: {mutation.old}"
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        # What is directed at a thing is quicker than what has to be met by chance.
        found = _run(copy, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *DIRECTED)
        if line := next((one for one in found if one.startswith("FAILED")), ""):
            return line.split(" - ")[0]
        found = _run(copy, "-m", "tests.simulation", "--first", str(first), "--seeds", str(seeds))
        line = next((one for one in found if one.startswith("seed ")), "")
        return line[:150].replace("|", "/")


def _run(copy: Path, *arguments: str) -> list[str]:
    """What it says when it fails; nothing otherwise."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
    )
    return done.stdout.splitlines() if done.returncode else []


if __name__ == "__main__":
    sys.exit(main())
