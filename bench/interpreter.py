"""Which Python on this machine runs our kind of code fastest: `python3 bench/interpreter.py`.

Prints the path of one. What `python3` names stays the choice unless another build of the same
version is a good deal faster: Python built with profile-guided optimisation, as distributions ship
it, runs such code a tenth to a third faster than one compiled with the defaults, as by pyenv.
How it was built does not show in `sysconfig` everywhere, so it is measured.

Run before anything is installed: nothing but the standard library, and no module of this project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

WORTH_IT = 0.95
"""Another is taken when it needs less than this share of the time."""
ASKED = 3
"""Each is asked so many times, in turn, and its best counts: the machine may be busy."""
ROUNDS = 9
TURNS = 20_000
TIMEOUT_S = 20.0


class Stream:
    """Something like a stream of tokens: dictionaries, attributes, calls, small byte strings."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0
        self.pieces: list[bytes] = []

    def take(self, token: int, words: dict[int, bytes]) -> bytes:
        word = words.get(token)
        if word is None:
            word = words[token] = b"%d" % token
        self.taken += 1
        self.pieces.append(word)
        return b"".join((b"data: ", word, b"\n\n"))


def seconds() -> float:
    """The least of some rounds, CPU time."""
    best = float("inf")
    for _ in range(ROUNDS):
        streams = {number: Stream(number) for number in range(16)}
        words: dict[int, bytes] = {}
        began = time.process_time()
        for turn in range(TURNS):
            streams[turn % 16].take(turn & 255, words)
        best = min(best, time.process_time() - began)
    return best


class Facts(NamedTuple):
    """What an interpreter is."""

    path: str
    version: str
    able: bool
    """Whether it can make an environment with pip in it."""
    seconds: float


def facts() -> Facts:
    """Those of this one."""
    try:
        import ensurepip  # noqa: F401 - Debian has it in a package of its own
        import ssl  # noqa: F401 - pyenv builds without it when its headers are missing
        import venv  # noqa: F401
    except ImportError:
        able = False
    else:
        able = True
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    path = os.path.join(sys.base_prefix, "bin", f"python{version}")  # noqa: PTH118
    return Facts(path if os.access(path, os.X_OK) else sys.executable, version, able, seconds())


def ask(command: str) -> Facts | None:
    """The facts of another interpreter; None for what does not run."""
    argv = [command, "-I", str(Path(__file__).resolve()), "--facts"]
    try:
        said = subprocess.run(argv, capture_output=True, timeout=TIMEOUT_S, check=True)
        return Facts(*json.loads(said.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def found(version: str) -> list[str]:
    """Every executable of this version in the directories of PATH and the usual two."""
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    paths = [Path(place, name) for place in places for name in (f"python{version}", "python3")]
    return list({path.resolve(): str(path) for path in paths if os.access(path, os.X_OK)}.values())


def measured(commands: list[str]) -> dict[str, Facts]:
    """Each interpreter at its best, by its path."""
    best: dict[str, Facts] = {}
    for command in commands * ASKED:
        one = ask(command)
        if one is not None and (one.path not in best or one.seconds < best[one.path].seconds):
            best[one.path] = one
    return best


def choose(own: Facts, others: list[Facts]) -> Facts:
    """The fastest that will do; our own where that is about as fast."""
    fit = [one for one in others if one.able and one.version == own.version]
    best = min(fit, key=lambda one: one.seconds, default=own)
    return best if not own.able or best.seconds < WORTH_IT * own.seconds else own


def main() -> None:
    own = facts()
    if "--facts" in sys.argv:
        print(json.dumps(own))
        return
    best = measured([sys.executable, *found(own.version)])
    own = best.get(own.path, own)
    chosen = choose(own, list(best.values()))
    if chosen.path != own.path:
        less = f"it takes {1 - chosen.seconds / own.seconds:.0%} less time"
        why = less if own.able else f"{own.path} cannot make an environment"
        say = f"taking {chosen.path} for {own.path}: {why} (make setup PYTHON=... for another)"
        print(say, file=sys.stderr)
    print(chosen.path)


if __name__ == "__main__":
    main()
