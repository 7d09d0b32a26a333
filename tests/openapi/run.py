"""Starts schemathesis' command line in a process of its own, and reads what it found."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from actors.ingress.actor import Ingress
from tests.service import MODEL

HOUSE = Path(__file__).parents[2]
SMALL = {"default_max_tokens": 4}
"""Options of an ingress for a run: an answer without a limit would fill the context."""


class Found(NamedTuple):
    """The outcome of a run."""

    code: int
    """0 when nothing was found."""
    cases: int
    report: str


async def run(ingress: Ingress, examples: int, phases: str, seed: int | None = None) -> Found:
    """Try every operation with `examples` generated requests, half of them invalid."""
    with TemporaryDirectory() as place:
        return await _run(ingress, examples, phases, seed, place)


async def _run(ingress: Ingress, examples: int, phases: str, seed: int | None, place: str) -> Found:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{ingress._server.url}/openapi.json"),
        *(f"--phases={phases}", f"--max-examples={examples}", "--continue-on-failure"),
        # Ours, in hooks.py, knows of fields that depend on each other.
        "--exclude-checks=positive_data_acceptance",
        *("--request-timeout=30", "--no-color", "--warnings=off"),
        *("--suppress-health-check=all", "--generation-database=none"),
        *(() if seed is None else (f"--seed={seed}",)),
        # It keeps what it has found there, and would try that first the next time.
        cwd=place,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.openapi.hooks",
            "SCHEMATHESIS_MODEL": MODEL,
            "PYTHONPATH": str(HOUSE),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    report = out.decode("utf-8", "replace")
    counted = re.search(r"(\d+) generated", report)
    assert process.returncode is not None
    return Found(process.returncode, int(counted[1]) if counted else 0, report)
