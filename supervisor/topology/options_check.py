"""Asks a process that may import the actors what the supervisor may not know itself.

The process is `actors.runtime.options`. One is started for each call here, asked once, and gone
when the call returns.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from actors.runtime.options import Answer, Inquiry
from supervisor.topology.errors import Problem, TopologyError
from supervisor.topology.places import Place
from supervisor.topology.reader import Reading

DEADLINE_S = 120.0
"""For importing every actor of a topology, torch included, on a busy machine."""
_SHOWN_LINES = 5


class OptionsProcessError(Exception):
    """The process that imports the actors did not answer: it died or took too long."""


async def check_options(reading: Reading, *, deadline_s: float = DEADLINE_S) -> None:
    """Check that every actor's class can be imported and takes the options it is given.

    Raises TopologyError with all mistakes found, each at its place in the file.
    """
    topology, document = reading.topology, reading.document
    inquiries = [
        Inquiry(actor.path, actor.class_path, actor.options)
        for node in topology.nodes()
        for actor in node.actors
    ]
    try:
        answers = await inquire(inquiries, "check", topology.base_dir, deadline_s=deadline_s)
    except OptionsProcessError as error:
        problem = Problem(Place(document.source), (), f"cannot check options: {error}")
        raise document.error([problem]) from error
    problems = [
        document.problem(fault.path, fault.message, fault.suggestion, at_key=fault.at == "key")
        for answer in answers
        for fault in answer.faults
    ]
    if problems:
        raise TopologyError(problems, document.text)


async def inquire(
    inquiries: Sequence[Inquiry],
    mode: Literal["check", "schema"],
    base_dir: Path,
    *,
    deadline_s: float = DEADLINE_S,
) -> list[Answer]:
    """One answer for each inquiry. `base_dir` is where the process looks for modules first.

    Raises OptionsProcessError. Whether it returns, raises or is cancelled, the process is gone.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # as for the nodes: a class counts only if they will find it too
        "-m",
        "actors.runtime.options",
        mode,
        str(base_dir),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            output, complaint = await process.communicate(msgspec.json.encode(inquiries))
    except TimeoutError:
        raise OptionsProcessError(f"importing the actors took over {deadline_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        tail = " / ".join(complaint.decode(errors="replace").splitlines()[-_SHOWN_LINES:])
        raise OptionsProcessError(f"importing the actors ended with {process.returncode}: {tail}")
    try:
        return msgspec.json.decode(output, type=list[Answer])
    except msgspec.MsgspecError as error:
        raise OptionsProcessError(f"importing the actors gave no answer: {error}") from None
