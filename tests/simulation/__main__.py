"""Run simulations by hand.

python -m tests.simulation --seeds 1000            seeds 0 to 999; stops at the first failure
python -m tests.simulation --seed 17 --trace       one, with everything that happens in it
python -m tests.simulation --seed 17 --keep 0,2    one, with some of its faults only
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.report import explain, shrink
from tests.simulation.run import run
from tests.simulation.seeds import ENOUGH, SOMETIMES


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, help="the one seed to run")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--keep", help="indices of the faults that strike, e.g. 0,2")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--all", action="store_true", help="go on after a failure")
    options = parser.parse_args()
    keep = None
    if options.keep is not None:
        keep = [int(part) for part in options.keep.split(",") if part]
    if options.seed is not None:
        result = run(options.seed, keep=keep, verbose=options.trace)
        print("\n".join(result.lines))
        for index, fault in enumerate(result.faults):
            print(f"fault {index}: {fault}")
        print(f"{result.virtual_s:.1f} s, {result.turns} turns, trace {result.digest}")
        print(result.failure or "no promise was broken")
        return 1 if result.failure else 0
    return _many(options.first, options.seeds, go_on=options.all)


def _many(first: int, count: int, *, go_on: bool) -> int:
    sometimes: Counter[str] = Counter()
    begun = time.monotonic()
    failed = 0
    virtual_s = 0.0
    for seed in range(first, first + count):
        result = run(seed)
        sometimes += result.sometimes
        virtual_s += result.virtual_s
        if result.failure:
            failed += 1
            print(result.failure.strip().splitlines()[-1] if go_on else explain(shrink(result)))
            print(f"  seed {seed}")
            if not go_on:
                return 1
    took = time.monotonic() - begun
    never = [what for what in SOMETIMES if not sometimes[what]] if count >= ENOUGH else []
    for what, number in sorted(sometimes.items()):
        print(f"{number:9d}  {what}")
    for what in never:
        print(f"seed none: it never happened: {what}")
    print(f"{count} seeds, {virtual_s / 3600:.1f} simulated hours in {took:.1f} s; {failed} failed")
    return 1 if failed or never else 0


if __name__ == "__main__":
    sys.exit(main())
