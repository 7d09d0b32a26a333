"""What only TensorRT-LLM can do to an engine: fail in its own ways, differ, be polled."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.engines.base import EngineFailed, Finish, Request, RequestRefused
from actors.engines.tensorrt_llm import TensorRtLlmEngine, TensorRtLlmOptions
from actors.messages.sampling import Grammar, Sampling
from tests.actors.engines.contract import (
    Listener,
    packed,
    prompt_of,
    request_of,
    run,
    running,
    settled,
    unloaded,
)
from tests.actors.engines.tensorrt_llm.fixtures import (
    GENERATIONS,
    HANDING_OVER,
    installed,
    make_engine,
    save_model,
)

BAD, FATAL = packed(1, 253), packed(1, 252)
EOS = 255


@contextmanager
def standin(generation: str, tmp_path: Path) -> Iterator[Any]:
    with installed(generation, os.environ, tmp_path) as module:
        save_model(tmp_path)
        yield module


@pytest.mark.parametrize("generation", ["0.17", "0.19", "1.2"])
def test_an_error_of_one_request_ends_that_request_alone(generation: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            await listener.run(request_of(1, BAD, 5), request_of(2, prompt_of(9), 5))
            assert listener.finishes(1) == [Finish.ERROR]
            assert listener.outputs[1][-1].error == "a bad token"
            assert listener.finishes(2) == [Finish.LENGTH]

    with standin(generation, tmp_path):
        run(test())


@pytest.mark.parametrize("generation", ["0.19", "1.0", "1.3"])
def test_a_dead_executor_ends_the_engine_with_its_reason(generation: str, tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(tmp_path)
        await engine.start()
        engine.submit(request_of(1, FATAL, 5))
        with pytest.raises(EngineFailed, match="CppExecutorError: out of memory"):
            async for _ in engine.steps():
                pass
        with pytest.raises(RequestRefused):
            engine.submit(request_of(2, prompt_of(9), 5))
        await engine.close()

    with standin(generation, tmp_path):
        run(test())


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(tmp_path / "nowhere")
        with pytest.raises(EngineFailed, match=r"1\.2\.0 cannot load .*nowhere: RuntimeError"):
            await engine.start()
        await engine.close()

    with standin("1.2", tmp_path):
        run(test())


def test_without_tensorrt_llm_the_start_says_what_to_do(tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(save_model(tmp_path))
        with pytest.raises(EngineFailed, match=r"cannot be imported here.*supervise doctor"):
            await engine.start()
        await engine.close()

    run(test())


def test_a_version_that_cannot_hand_over_refuses_to_be_a_context_worker(tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(tmp_path, duty="context")
        with pytest.raises(EngineFailed, match=r"0\.17.* cannot hand over"):
            await engine.start()
        await engine.close()

    with standin("0.17", tmp_path):
        run(test())


def test_an_argument_that_no_version_has_is_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(tmp_path, arguments={"max_btach_size": 3})
        with pytest.raises(EngineFailed, match="no argument 'max_btach_size'"):
            await engine.start()
        await engine.close()

    with standin("1.2", tmp_path):
        run(test())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_one_arguments_file_serves_every_version(generation: str, tmp_path: Path) -> None:
    path = tmp_path / "llm_api_config.yaml"
    path.write_text(
        f"model_name: test/model\nmodel_path: {tmp_path}\ntensor_parallel_size: 1\n"
        "moe_expert_parallel_size: 1\nenable_attention_dp: false\nmax_num_tokens: 10240\n"
        "max_batch_size: 16\ntrust_remote_code: true\nbackend: pytorch\n"
        "kv_cache_config: {free_gpu_memory_fraction: 0.95}\n"
        "pytorch_backend_config: {enable_overlap_scheduler: false, use_cuda_graph: false}\n"
    )

    async def test(module: Any) -> None:
        options = TensorRtLlmOptions(engine_args=path.name, quiet_s=0.1, poll_s=0.01)
        engine = TensorRtLlmEngine(options, base_dir=tmp_path)
        async with running(engine) as listener:
            assert (listener.info.model, listener.info.max_running) == ("test/model", 16)
            await listener.run(request_of(1, prompt_of(9), 5))
            (llm,) = module.made
            assert llm._settings["overlap"] is False
            assert llm._settings["stats"] is True

    with standin(generation, tmp_path) as module:
        run(test(module))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_end_token_is_not_part_of_the_output(generation: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            for number in range(8):
                prompt = prompt_of(9, salt=number)
                await listener.run(request_of(number, prompt, 300, ignore_eos=False))
                assert listener.finishes(number) == [Finish.STOP]
                assert EOS not in listener.tokens(number)
                stop = listener.tokens(number)[-1:]
                await listener.run(
                    request_of(100 + number, prompt, 300, stop_token_ids=tuple(stop))
                )
                said = listener.tokens(100 + number)
                assert said == listener.tokens(number)[: len(said)]
                assert stop[0] not in said

    with standin(generation, tmp_path):
        run(test())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_sampling_is_sampling_and_greedy_is_greedy(generation: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            for number, options in enumerate(
                (
                    {"temperature": 0.0, "seed": 1},
                    {"temperature": 0.0, "seed": 2},
                    {"temperature": 1.0, "seed": 1},
                    {"temperature": 1.0, "seed": 1},
                    {"temperature": 1.0, "seed": 2},
                )
            ):
                await listener.run(request_of(number, prompt_of(9), 20, **options))
            greedy, same, sampled, again, other = (listener.tokens(n) for n in range(5))
            assert greedy == same
            assert sampled == again
            assert len({tuple(greedy), tuple(sampled), tuple(other)}) == 3

    with standin(generation, tmp_path):
        run(test())


@pytest.mark.parametrize("generation", GENERATIONS)
def test_logprobs_come_in_both_forms(generation: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            await listener.run(request_of(1, prompt_of(9), 5, logprobs=0))
            found = [one for output in listener.outputs[1] for one in output.logprobs or ()]
            assert [one.chosen.token for one in found] == listener.tokens(1)
            assert all(math.isclose(one.chosen.logprob, -0.5) for one in found)
            await listener.run(request_of(2, prompt_of(9), 5, logprobs=2))
            if generation in {"0.17", "0.19"}:
                assert "the chosen token's logprob only" in listener.outputs[2][-1].error
            else:
                first = (listener.outputs[2][0].logprobs or [])[0]
                assert [one.logprob for one in first.top] == [-0.5, -1.0]

    with standin(generation, tmp_path):
        run(test())


def test_logit_bias_reaches_the_engine(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            await listener.run(request_of(1, prompt_of(9), 3, logit_bias={77: 5.0}))
            assert listener.tokens(1) == [77, 77, 77]

    with standin("1.2", tmp_path):
        run(test())


def test_a_penalty_that_cannot_be_continued_truthfully_is_not(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            sampling = Sampling(max_tokens=5, presence_penalty=1.0)
            await listener.run(Request(1, prompt_of(9), sampling, resumed=3))
            assert "cannot be continued truthfully" in listener.outputs[1][-1].error

    with standin("1.2", tmp_path):
        run(test())


@pytest.mark.parametrize("generation", HANDING_OVER)
def test_a_transfer_is_switched_on_as_the_version_wants(generation: str, tmp_path: Path) -> None:
    async def test(module: Any) -> None:
        environ: dict[str, str] = {}
        options = TensorRtLlmOptions(model=str(tmp_path), quiet_s=0.1, poll_s=0.01)
        engine = TensorRtLlmEngine(options, base_dir=tmp_path, duty="context", environ=environ)
        async with running(engine):
            config = module.made[0].kwargs.get("cache_transceiver_config")
            backend = getattr(config, "backend", None)
            expected = {"1.0": "default", "1.2": "DEFAULT", "1.3": "DEFAULT"}
            assert backend == expected.get(generation)
            assert environ == ({} if backend else {"TRTLLM_USE_UCX_KVCACHE": "1"})

    with standin(generation, tmp_path) as module:
        run(test(module))


def test_structured_output_is_refused_in_plain_words(tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, duty="aggregated")) as listener:
            with pytest.raises(RequestRefused, match="structured output is not possible with Ten"):
                listener.engine.submit(
                    request_of(1, prompt_of(9), 5, grammar=Grammar("regex", "[a-z]+"))
                )

    with standin("1.2", tmp_path):
        run(test())


def test_statistics_over_rpc_do_not_hold_up_the_engine(tmp_path: Path) -> None:
    async def test() -> None:
        engine = make_engine(tmp_path, arguments={"orchestrator_type": "rpc"})
        async with running(engine) as listener:
            assert listener.info.blocks_total == 64
            await listener.run(request_of(1, prompt_of(40), 9))
            await settled(lambda: bool(engine.cache_snapshot()))

    with standin("1.3", tmp_path):
        run(test())


def test_an_abort_that_nobody_answers_counts_after_a_while(tmp_path: Path) -> None:
    async def test(module: Any) -> None:
        async with running(make_engine(tmp_path, cancel_grace_s=0.05)) as listener:
            module.made[0]._executor.abort = lambda _number: None
            listener.engine.submit(request_of(1, prompt_of(9), 480))
            listener.engine.cancel(1)
            await listener.until(lambda: bool(listener.finishes(1)))
            assert listener.finishes(1) in ([Finish.CANCELLED], [Finish.LENGTH])
            await unloaded(listener.engine)

    with standin("1.2", tmp_path) as module:
        run(test(module))


def test_a_handoff_that_nobody_fetches_is_given_up(tmp_path: Path) -> None:
    async def test(module: Any) -> None:
        async with running(make_engine(tmp_path, duty="context", handoff_ttl_s=0.05)) as listener:
            request = request_of(1, prompt_of(40), 9)
            await listener.prefill(Request(1, request.prompt, request.sampling, phase="prefill"))
            await listener.until(lambda: bool(listener.finishes(1)))
            assert listener.finishes(1) == [Finish.CANCELLED]
            await settled(lambda: not module.made[0]._executor._kept)

    with standin("1.2", tmp_path) as module:
        run(test(module))


async def _prefilled(listener: Listener, number: int) -> Any:
    request = request_of(number, prompt_of(20), 5)
    return await listener.prefill(Request(number, request.prompt, request.sampling, "prefill"))


def test_a_handoff_of_a_newer_version_is_refused_with_the_fields_it_needs(tmp_path: Path) -> None:
    async def context() -> Any:
        async with running(make_engine(tmp_path, duty="context")) as listener:
            return await _prefilled(listener, 1)

    async def generation(handoff: Any) -> str:
        async with running(make_engine(tmp_path, duty="generation")) as listener:
            request = request_of(1, prompt_of(20), 5)
            await listener.run(Request(1, request.prompt, request.sampling, "decode", handoff))
            return listener.outputs[1][-1].error

    with standin("1.3", tmp_path):
        handoff = asyncio.run(context())
    with standin("1.2", tmp_path):
        error = asyncio.run(generation(handoff))

    assert "1.3.0rc3 with ctx_dp_rank" in error
    assert "run one version on both sides" in error
