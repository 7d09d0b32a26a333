from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from actors.engines.base import EngineFailed, Finish, Request, RequestRefused
from actors.engines.transformers import TransformersEngine, TransformersOptions
from actors.kv.hashing import sequence_hashes
from actors.messages.cache import Removed, Stored
from actors.messages.sampling import Sampling
from tests.actors.engines.transformers.harness import (
    Result,
    packed,
    play,
    read,
    request,
    running,
    settle,
)
from tests.actors.engines.transformers.models import CONTEXT, EOS, FAMILIES, VOCABULARY, save_model

Checkpoint = Callable[[str], str]


def prompt(number: int, length: int) -> list[int]:
    return [(number * 37 + i * (2 * number + 3)) % 250 for i in range(length)]


def generate(checkpoint: str, tokens: list[int], count: int) -> list[int]:
    """What Transformers itself generates, greedily."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.generation_config.eos_token_id = None
    ids = torch.tensor([tokens])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    found: list[int] = out[0, len(tokens) :].tolist()
    return found


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_output_is_that_of_generate(
    checkpoint: Checkpoint, family: str, deterministic: bool
) -> None:
    """Prompts of one token, within a chunk and over several chunks, all in one batch."""
    prompts = [prompt(i, n) for i, n in enumerate((1, 5, 16, 40, 97))]
    # The tokens generate() ends at would differ; both are told to go on to the end.
    expected = [generate(checkpoint(family), tokens, 12) for tokens in prompts]

    async def main() -> dict[int, Result]:
        async with running(
            model=checkpoint(family), deterministic=deterministic, max_step_tokens=32
        ) as engine:
            return await play(engine, [request(i, p, max_tokens=12) for i, p in enumerate(prompts)])

    results = asyncio.run(main())

    assert [results[i].tokens for i in range(len(prompts))] == expected
    assert {result.finish for result in results.values()} == {Finish.LENGTH}


def test_prefix_reuse_changes_no_token_and_is_reported(checkpoint: Checkpoint) -> None:
    async def main(*, reuse: bool) -> tuple[Result, Result]:
        async with running(model=checkpoint("qwen3"), prefix_cache=reuse) as engine:
            first = await play(engine, [request(0, prompt(1, 50), max_tokens=20)])
            again = prompt(1, 50) + first[0].tokens + [9]
            second = await play(engine, [request(1, again, max_tokens=20)])
            return first[0], second[1]

    _, cold = asyncio.run(main(reuse=False))
    _, warm = asyncio.run(main(reuse=True))

    assert warm.tokens == cold.tokens
    assert cold.cached_tokens == 0
    # 50 + 20 tokens, of which the last was never computed: four full blocks of 16.
    assert warm.cached_tokens == 64


def test_cache_events_name_the_blocks_and_agree_with_the_snapshot(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama"), blocks=6) as engine:
            await play(engine, [request(0, prompt(1, 33), max_tokens=1)])
            hashes = sequence_hashes(packed(prompt(1, 33)), 16)
            assert engine.take_cache_events() == [Stored(None, tuple(hashes))]
            assert engine.take_cache_events() == []
            assert engine.cache_snapshot() == [Stored(None, tuple(hashes))]

            await play(engine, [request(1, prompt(2, 90), max_tokens=1)])
            others = sequence_hashes(packed(prompt(2, 90)), 16)
            assert engine.take_cache_events() == [
                Removed((hashes[1], hashes[0])),
                Stored(None, tuple(others)),
            ]

    asyncio.run(main())


def test_preempted_requests_are_recomputed_to_the_same_tokens(checkpoint: Checkpoint) -> None:
    """Four requests that each need most of the pool."""
    requests = [request(i, prompt(i, 20), max_tokens=60) for i in range(4)]

    async def main(blocks: int) -> dict[int, Result]:
        async with running(
            model=checkpoint("llama"), blocks=blocks, deterministic=True, prefix_cache=False
        ) as engine:
            results = await play(engine, requests)
            await settle(engine)
            assert engine.load().blocks_used == 0
            return results

    roomy, tight = asyncio.run(main(64)), asyncio.run(main(9))

    assert {i: r.tokens for i, r in tight.items()} == {i: r.tokens for i, r in roomy.items()}


def test_sampled_streams_do_not_depend_on_company_or_on_where_they_are_resumed(
    checkpoint: Checkpoint,
) -> None:
    sampling = {"temperature": 0.9, "top_p": 0.95, "seed": 11, "presence_penalty": 0.5}

    async def main() -> None:
        async with running(model=checkpoint("llama"), deterministic=True) as engine:
            alone = await play(engine, [request(0, prompt(3, 30), max_tokens=24, **sampling)])
            tokens = alone[0].tokens
            company = [request(i, prompt(i, 5 * i), max_tokens=30) for i in range(2, 8)]
            resumed = Request(
                1,
                packed(prompt(3, 30) + tokens[:10]),
                Sampling(max_tokens=14, ignore_eos=True, **sampling),  # type: ignore[arg-type]  # one type for all values
                resumed=10,
            )
            again = await play(engine, [*company, resumed])
            assert again[1].tokens == tokens[10:]

    asyncio.run(main())


def test_an_end_token_stops_and_is_not_part_of_the_output(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            free = await play(engine, [request(0, prompt(1, 9), max_tokens=8)])
            third = free[0].tokens[2]
            assert third not in free[0].tokens[:2]
            results = await play(
                engine,
                [
                    request(1, prompt(1, 9), max_tokens=8, stop_token_ids=(third,)),
                    request(2, prompt(1, 9), max_tokens=3, stop_token_ids=(third,), min_tokens=3),
                    request(3, prompt(1, 9), logit_bias={EOS: 1000.0}, ignore_eos=False),
                ],
            )
            assert results[1].tokens == free[0].tokens[:2]
            assert results[1].finish is Finish.STOP
            assert third not in results[2].tokens
            assert len(results[2].tokens) == 3
            assert (results[3].tokens, results[3].finish) == ([], Finish.STOP)

    asyncio.run(main())


def test_output_ends_where_the_context_is_full(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            results = await play(
                engine,
                [
                    request(0, prompt(1, CONTEXT - 1), max_tokens=10),
                    request(1, prompt(2, CONTEXT - 3), max_tokens=10),
                ],
            )
            assert [len(results[i].tokens) for i in (0, 1)] == [1, 3]
            assert results[1].finish is Finish.LENGTH

    asyncio.run(main())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (request(0, []), "one or more tokens"),
        (request(0, prompt(1, CONTEXT)), "no room in a context of 512"),
        (request(0, [VOCABULARY]), "token 256 is outside"),
        (request(0, [1], logit_bias={300: 1.0}), "token 300 is outside"),
        (request(0, [1], max_tokens=0), "nothing is left"),
        (Request(0, packed([1]), Sampling(1), phase="decode"), "handoff"),
        (Request(0, packed([1]), Sampling(1), resumed=2), "2 resumed"),
    ],
)
def test_what_can_never_run_is_refused(checkpoint: Checkpoint, wrong: Request, reason: str) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            with pytest.raises(RequestRefused, match=reason):
                engine.submit(wrong)

    asyncio.run(main())


def test_a_full_queue_and_a_live_id_are_refused(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama"), max_waiting=2, max_running=1) as engine:
            engine.submit(request(0, prompt(1, 5)))
            with pytest.raises(RequestRefused, match="request 0 is running"):
                engine.submit(request(0, prompt(1, 5)))
            engine.submit(request(1, prompt(1, 5)))
            with pytest.raises(RequestRefused, match="2 requests wait"):
                engine.submit(request(2, prompt(1, 5)))
            await read(engine, {0: Result(), 1: Result()})

    asyncio.run(main())


def test_cancelling_at_any_moment_frees_everything(checkpoint: Checkpoint) -> None:
    """While waiting, in the prompt, while decoding, and after the end."""

    async def main() -> None:
        async with running(
            model=checkpoint("llama"), max_step_tokens=16, max_running=6, prefix_cache=False
        ) as engine:
            for at in range(1, 12):
                results = await play(
                    engine,
                    [request(i, prompt(i, 10 + 9 * i), max_tokens=6) for i in range(8)],
                    until=lambda found, at=at: sum(r.outputs for r in found.values()) >= at,  # type: ignore[misc]  # mypy cannot infer a default's type in a lambda
                )
                for number in range(9):  # 8 was never heard of
                    engine.cancel(number)
                if not all(result.over for result in results.values()):
                    await read(engine, results)
                await settle(engine)
                finishes = {result.finish for result in results.values()}
                assert Finish.CANCELLED in finishes
                assert finishes <= {Finish.CANCELLED, Finish.LENGTH}
                load = engine.load()
                assert (load.running, load.waiting, load.blocks_used) == (0, 0, 0)

    asyncio.run(main())


def test_a_reader_that_lags_holds_the_engine_back(checkpoint: Checkpoint) -> None:
    """Outputs waiting for the reader are bounded, and none is lost."""

    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            engine.submit(request(0, prompt(1, 5), max_tokens=200))
            await settle(engine)
            assert len(engine._steps) == 64
            results = {0: Result()}
            await read(engine, results)
            assert len(results[0].tokens) == 200

    asyncio.run(main())


def test_logprobs_are_the_models_own(checkpoint: Checkpoint) -> None:
    tokens = prompt(1, 12)
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint("llama"))
    with torch.inference_mode():
        expected = model(torch.tensor([tokens])).logits[0, -1].double().log_softmax(-1)

    async def main() -> Result:
        async with running(model=checkpoint("llama")) as engine:
            return (await play(engine, [request(0, tokens, max_tokens=1, logprobs=3, seed=4)]))[0]

    result = asyncio.run(main())

    (found,) = result.logprobs
    best = expected.topk(3)
    assert [entry.token for entry in found.top] == best.indices.tolist()
    assert [entry.logprob for entry in found.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert found.chosen.logprob == pytest.approx(float(expected[result.tokens[0]]), abs=1e-4)


def test_a_broken_step_fails_the_engine(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            from actors.engines.transformers.runner import Runner

            def broken(*_: object) -> None:
                raise RuntimeError("out of memory")

            monkeypatch.setattr(Runner, "run", broken)
            with pytest.raises(EngineFailed, match="out of memory"):
                await play(engine, [request(0, prompt(1, 5))])
            with pytest.raises(RequestRefused):
                engine.submit(request(1, prompt(1, 5)))

    asyncio.run(main())


def test_logits_that_are_not_numbers_end_one_request(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actors.engines.transformers.runner import Runner
    from actors.engines.transformers.work import Work

    run = Runner.run

    def poisoned(runner: Runner, works: list[Work]) -> torch.Tensor:
        logits = run(runner, works).clone()
        for row, work in enumerate(works):
            if work.tokens[0] == 13:
                logits[row] = torch.nan
        return logits

    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            monkeypatch.setattr(Runner, "run", poisoned)
            results = await play(
                engine,
                [
                    request(0, [13]),
                    request(1, [14]),
                    request(2, [13], temperature=1.0),
                ],
            )
            assert [results[i].finish for i in range(3)] == [
                Finish.ERROR,
                Finish.LENGTH,
                Finish.ERROR,
            ]
            assert "not numbers" in results[0].error

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"sliding_window": 64}, "sliding-window")],
)
def test_models_without_full_attention_fail_to_start(
    tmp_path: Any, changes: dict[str, Any], reason: str
) -> None:
    directory = save_model("mistral", tmp_path, **changes)

    async def main() -> None:
        with pytest.raises(EngineFailed, match=reason):
            async with running(model=str(directory)):
                pass

    asyncio.run(main())


def test_a_missing_model_fails_to_start(tmp_path: Any) -> None:
    async def main() -> None:
        engine = TransformersEngine(TransformersOptions(model=str(tmp_path / "none")))
        with pytest.raises(EngineFailed, match="cannot be loaded"):
            await engine.start()
        await engine.close()

    asyncio.run(main())


def test_closing_gives_back_every_descriptor_and_thread(checkpoint: Checkpoint) -> None:
    """Without waiting for the collector, which may come late; the blocks are a descriptor, too."""

    def held() -> Counter[str]:
        links = [file for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]
        files = [str(link.readlink()).split(":[")[0] for link in links]
        return Counter(files + [thread.name for thread in threading.enumerate()])

    async def main() -> None:
        for _ in range(3):
            async with running(model=checkpoint("llama")) as engine:
                engine.submit(request(0, prompt(1, 50), max_tokens=400))

    asyncio.run(main())  # starts the threads that torch and tqdm keep
    gc.collect()  # what other tests of this process have left
    gc.disable()
    try:
        before = held()
        asyncio.run(main())
        assert held() - before == Counter()
    finally:
        gc.enable()
