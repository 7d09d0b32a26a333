"""Each scripted fault strikes where the script says, once, and is counted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from actors.engines.base import EngineFailed, Finish, Request
from actors.engines.simulated import SimulatedEngine, SimulatedOptions, expected_tokens
from actors.engines.simulated.faults import (
    Drop,
    Fail,
    FailHandoff,
    Fault,
    IgnoreSigterm,
    RefuseStart,
    SlowDown,
    Stall,
)
from bench.virtual_time import run
from tests.actors.engines.contract import prompt_of, request_of, running
from tests.actors.engines.simulated.test_engine import engine_of, timed


def test_refused_start_raises() -> None:
    async def test() -> None:
        engine = engine_of(faults=(RefuseStart(),))
        with pytest.raises(EngineFailed):
            await engine.start()
        assert engine.faults_fired == {"refuse_start": 1}

    run(test())


def test_failing_step_is_the_last_and_its_outputs_are_lost() -> None:
    async def test() -> None:
        engine = engine_of(faults=(Fail(step=3),))
        await engine.start()
        engine.submit(request_of(1, prompt_of(10), 9))
        heard = 0
        with pytest.raises(EngineFailed):  # noqa: PT012 - raised by the iteration
            async for _ in engine.steps():
                heard += 1
        assert heard == 2
        await engine.close()

    run(test())


def test_stalled_engine_is_busy_without_progress() -> None:
    async def test() -> None:
        engine = engine_of(faults=(Stall(request=2, token=3),))
        async with running(engine) as listener:
            await listener.run(request_of(1, prompt_of(10), 9))
            engine.submit(request_of(2, prompt_of(10), 9))
            await asyncio.sleep(100)
            stuck_at = engine.progress
            engine.cancel(2)
            await asyncio.sleep(100)
            assert engine.busy
            assert engine.progress == stuck_at
            assert len(listener.tokens(2)) == 2
            assert engine.faults_fired == {"stall": 1}

    run(test())


def test_slow_steps_are_slow_for_as_long_as_said() -> None:
    async def test() -> None:
        engine = engine_of(faults=(SlowDown(step=1, factor=3.0, steps=2),))
        await engine.start()
        heard = await timed(engine, request_of(1, prompt_of(10), 5))
        assert [at for at, _ in heard] == [100.0, 130.0, 160.0, 170.0, 180.0]
        await engine.close()

    run(test())


def test_dropped_token_is_missing_and_the_rest_arrives() -> None:
    async def test() -> None:
        engine = engine_of(faults=(Drop(request=1, token=2), Drop(request=2, token=4)))
        async with running(engine) as listener:
            await listener.run(request_of(1, prompt_of(10), 4), request_of(2, prompt_of(10), 4))
            whole = expected_tokens(prompt_of(10), 0, 4, engine.options.words)
            assert listener.tokens(1) == [whole[0], *whole[2:]]
            assert listener.tokens(2) == whole[:3]
            assert listener.finishes(2) == [Finish.LENGTH]
            assert all(listener.lists)
            assert engine.faults_fired == {"drop": 2}

    run(test())


def test_failed_handoff_ends_its_request_and_frees_its_blocks() -> None:
    async def test() -> None:
        context, generation = engine_of(), engine_of(faults=(FailHandoff(handoff=2),))
        async with running(context) as first, running(generation) as second:
            for number, finish in ((1, Finish.LENGTH), (2, Finish.ERROR), (3, Finish.LENGTH)):
                request = request_of(number, prompt_of(10), 4)
                prefill = Request(number, request.prompt, request.sampling, phase="prefill")
                handoff = await first.prefill(prefill)
                await second.run(
                    Request(
                        number, request.prompt, request.sampling, phase="decode", handoff=handoff
                    )
                )
                assert second.finishes(number) == [finish]
            assert generation.load().blocks_used == 0

    run(test())


def test_marker_is_left_and_keeps_the_fault_from_striking_again(tmp_path: Path) -> None:
    async def test() -> None:
        marker = tmp_path / "fired"
        faults: tuple[Fault, ...] = (Fail(request=1, token=1, marker=str(marker)),)
        first, second = engine_of(faults=faults), engine_of(faults=faults)
        await first.start()
        with pytest.raises(EngineFailed):
            await timed(first, request_of(1, prompt_of(10), 4))
        await first.close()
        assert marker.exists()

        successor = engine_of(faults=faults)
        await successor.start()
        heard = await timed(successor, request_of(1, prompt_of(10), 4))
        assert len(heard) == 4
        await successor.close()
        assert not second.faults_fired

    run(test())


def test_ignored_sigterm_has_no_effect_until_close() -> None:
    async def test() -> None:
        before = signal.getsignal(signal.SIGTERM)
        engine = engine_of(faults=(IgnoreSigterm(),))
        await engine.start()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        await engine.close()
        assert signal.getsignal(signal.SIGTERM) is before

    run(test())


_DOOMED = """
import asyncio, sys
import msgspec
from actors.engines.base import Request
from actors.engines.simulated import SimulatedEngine, SimulatedOptions
from actors.messages.sampling import Sampling

async def main():
    engine = SimulatedEngine(msgspec.json.decode(sys.argv[1], type=SimulatedOptions))
    await engine.start()
    engine.submit(Request(1, b"abcd", Sampling(max_tokens=9)))
    async for outputs in engine.steps():
        [output] = outputs
        print(output.tokens[0], flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"do": "kill", "request": 1, "token": 4}, -signal.SIGKILL),
        ({"do": "exit", "step": 4, "code": 7}, 7),
    ],
)
def test_process_dies_before_the_token_is_seen(fault: dict[str, object], code: int) -> None:
    """A real process: three tokens get out, the fourth never does."""
    options = msgspec.json.encode({"kind": "simulated", "speedup": 0, "faults": [fault]})
    done = subprocess.run(
        [sys.executable, "-c", _DOOMED, options.decode()],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    words = SimulatedOptions().words
    said = [int(line) for line in done.stdout.split()]
    assert said == expected_tokens(b"abcd", 0, 3, words)


@pytest.mark.parametrize(
    "text",
    [
        '{"kind": "simulated", "faults": [{"do": "kill"}]}',
        '{"kind": "simulated", "faults": [{"do": "kill", "step": 1, "request": 1}]}',
        '{"kind": "simulated", "faults": [{"do": "melt", "step": 1}]}',
        '{"kind": "simulated", "tokens": [900, 300]}',
        '{"kind": "simulated", "eos_token_ids": [301]}',
        '{"kind": "simulated", "blocs": 3}',
    ],
)
def test_contradictory_options_are_told_apart_from_good_ones(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=SimulatedOptions)


def test_options_survive_being_written_down() -> None:
    options = SimulatedOptions(faults=(SlowDown(step=2, factor=2.0), Drop(request=1)))
    text = msgspec.json.encode(options)
    assert msgspec.json.decode(text, type=SimulatedOptions) == options
    assert SimulatedEngine(options).options is options
