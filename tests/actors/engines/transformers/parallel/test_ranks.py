"""Engines over several ranks, in real processes under mpirun."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.engines.base import Request
from actors.engines.transformers import TransformersEngine, TransformersOptions
from tests.actors.engines.transformers.harness import PATIENCE_S, Result, play, request
from tests.actors.engines.transformers.parallel.conftest import Program, Server, mpi_program
from tests.actors.engines.transformers.test_handoff import phase

pytestmark = pytest.mark.process

CAPITALS = str(Path(__file__).parents[5] / "topologies" / "models" / "capitals")
SHARED = [HealthCheck.function_scoped_fixture]
"""The engines are meant to see one example after another."""
TOLERANCE = 2e-4
"""Of log-probabilities: sums in another order move them by some units in the last place."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One server of two ranks."""
    directory = tmp_path_factory.mktemp("mpi") / "ranks"
    with mpi_program(directory, 2, model=CAPITALS) as running:
        yield running


@pytest.fixture(scope="module")
def alone(loop: asyncio.Runner) -> Iterator[TransformersEngine]:
    """An engine of one rank with the same model."""
    engine = TransformersEngine(TransformersOptions(model=CAPITALS, kv_memory="1MiB"))
    loop.run(engine.start())
    yield engine
    loop.run(engine.close())


@pytest.fixture
def pair(program: Program) -> Server:
    return program.servers[0]


def assert_same(found: dict[int, Result], expected: dict[int, Result]) -> None:
    for number, result in expected.items():
        assert found[number].tokens == result.tokens
        assert found[number].finish == result.finish
        for mine, theirs in zip(found[number].logprobs, result.logprobs, strict=True):
            assert mine.chosen.token == theirs.chosen.token
            assert mine.chosen.logprob == pytest.approx(theirs.chosen.logprob, abs=TOLERANCE)


PROMPTS = st.lists(st.lists(st.integers(5, 1000), min_size=1, max_size=70), min_size=1, max_size=6)


@settings(max_examples=8, deadline=None, suppress_health_check=SHARED)
@given(prompts=PROMPTS)
def test_two_ranks_say_what_one_does(
    pair: Server, alone: TransformersEngine, loop: asyncio.Runner, prompts: list[list[int]]
) -> None:
    requests = [
        request(number, prompt, max_tokens=12, logprobs=0) for number, prompt in enumerate(prompts)
    ]

    expected = loop.run(play(alone, requests))

    assert_same(pair.play(requests), expected)


@settings(max_examples=8, deadline=None, suppress_health_check=SHARED)
@given(prompts=PROMPTS)
def test_two_ranks_find_of_prompts_what_one_does(
    pair: Server, alone: TransformersEngine, loop: asyncio.Runner, prompts: list[list[int]]
) -> None:
    """Vectors, and log probabilities of the prompts' own tokens."""
    requests = [
        request(2 * number + which, prompt, max_tokens=1, logprobs=0, prompt=wish)
        for number, prompt in enumerate(prompts)
        for which, wish in enumerate(("embedding", "logprobs"))
    ]

    expected = loop.run(play(alone, requests))
    found = pair.play(requests)

    for number, result in expected.items():
        mine, theirs = found[number].findings, result.findings
        assert mine is not None
        assert theirs is not None
        vector, other = (np.frombuffer(one.embedding, "<f4") for one in (mine, theirs))
        assert vector.shape == other.shape == ((128,) if number % 2 == 0 else (0,))
        assert np.allclose(vector, other, atol=TOLERANCE)
        pairs = list(zip(mine.logprobs, theirs.logprobs, strict=True))
        assert len(pairs) == (len(prompts[number // 2]) if number % 2 else 0)
        for one, same in pairs[1:]:
            assert one.chosen.token == same.chosen.token
            assert one.chosen.logprob == pytest.approx(same.chosen.logprob, abs=TOLERANCE)


@settings(max_examples=8, deadline=None, suppress_health_check=SHARED)
@given(prompts=PROMPTS, splits=st.booleans())
def test_a_sequence_moves_between_engines_of_different_sizes(
    pair: Server,
    alone: TransformersEngine,
    loop: asyncio.Runner,
    prompts: list[list[int]],
    splits: bool,
) -> None:
    """From one rank to two, and from two to one; with what is in the caches from before."""
    requests = [
        request(number, prompt, max_tokens=12, logprobs=0) for number, prompt in enumerate(prompts)
    ]
    expected = loop.run(play(alone, requests))

    def here(wanted: list[Request]) -> dict[int, Result]:
        return loop.run(play(alone, wanted))

    context, generation = (here, pair.play) if splits else (pair.play, here)
    prefills = context([phase(whole, "prefill") for whole in requests])
    decodes = generation([phase(whole, "decode", prefills[whole.id].handoff) for whole in requests])
    numbers = list(decodes)
    if splits:
        for number in numbers:
            alone.release(number)
    else:
        pair.play([], release=numbers)

    for number, result in decodes.items():
        assert (result.fetched, result.error) == (True, "")
        result.tokens[:0] = prefills[number].tokens
        result.logprobs[:0] = prefills[number].logprobs
    assert_same(decodes, expected)


def test_idle_ranks_burn_no_core(program: Program, pair: Server) -> None:
    pair.play([request(1, range(5, 30))])
    ranks = children(program.process.pid)
    assert len(ranks) == 2
    before = [cpu_s(pid) for pid in ranks]

    # What is measured is a length of time in which nothing happens.
    pair.play([])
    signal.sigtimedwait([], 1.0)

    assert max(cpu_s(pid) - was for pid, was in zip(ranks, before, strict=True)) < 0.2


def children(pid: int) -> list[int]:
    """Of mpirun: the ranks."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_lost_rank_ends_its_engine(tmp_path: Path, checkpoint: Callable[[str], str]) -> None:
    model = checkpoint("llama")
    with mpi_program(tmp_path / "ranks", 2, ends_ill=True, model=model) as running:
        (server,) = running.servers
        os.kill(children(running.process.pid)[1], signal.SIGKILL)

        with pytest.raises((AssertionError, OSError)):
            server.play([request(1, range(5, 30))])
        assert running.process.wait(PATIENCE_S) != 0
