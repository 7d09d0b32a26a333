"""From a failing run to the smallest one that fails, and the command that shows it."""

from __future__ import annotations

from tests.simulation.run import Result, run
from tests.simulation.scenario import make

TAIL_LINES = 40


class Shrunk:
    """A failing run with as few faults as still make it fail."""

    def __init__(self, result: Result, keep: list[int]) -> None:
        self.result = result
        self.keep = keep


def shrink(result: Result) -> Shrunk:
    """Leave faults out one at a time while the run still fails."""
    keep = list(range(len(make(result.seed).faults)))
    best = result
    for index in list(keep):
        fewer = [one for one in keep if one != index]
        tried = run(result.seed, keep=fewer)
        if tried.failure:
            keep, best = fewer, tried
    return Shrunk(best, keep)


def explain(shrunk: Shrunk) -> str:
    """What went wrong, the end of the trace, and how to see it again."""
    result = run(shrunk.result.seed, keep=shrunk.keep, verbose=True)
    kept = ",".join(map(str, shrunk.keep))
    command = f"python -m tests.simulation --seed {result.seed} --keep '{kept}' --trace"
    return "\n".join(
        [
            *result.lines[-TAIL_LINES:],
            "",
            f"seed {result.seed}: {result.failure}",
            *(f"  fault {i}: {f}" for i, f in zip(shrunk.keep, result.faults, strict=True)),
            f"replay it: {command}",
        ]
    )
