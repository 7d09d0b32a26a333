"""schemathesis against a service on the simulated engine, for as long as one likes.

python -m tests.openapi --examples 200
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.openapi.run import SMALL, run
from tests.service import disaggregated


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.openapi", description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="of each operation (200)")
    parser.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    asked = parser.parse_args()
    async with disaggregated(ingress=SMALL) as (_, ingress):
        found = await run(ingress, asked.examples, "coverage,fuzzing", asked.seed)
    print(found.report)
    return found.code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
