"""Structured output in the engine: masks, ends, cancels, and going on after a loss."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.engines.base import Finish, Request, RequestRefused
from actors.engines.prompts import unpack
from actors.engines.transformers import TransformersEngine
from actors.engines.transformers import guides as guides_module
from actors.engines.transformers.guides import Guide, Guides
from actors.messages.sampling import Grammar, Sampling
from actors.text.tokenizer import Tokenizer
from tests.actors.engines.transformers.harness import (
    PATIENCE_S,
    Result,
    packed,
    play,
    read,
    request,
    running,
    settle,
)
from tests.service import CAPITALS

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "country": {"enum": ["France", "Spain"]},
            "name": {"type": "string", "maxLength": 12},
            "size": {"type": "integer", "minimum": 0, "maximum": 999},
        },
        "required": ["country", "name", "size"],
        "additionalProperties": False,
    }
)
JSON = Grammar("json_schema", SCHEMA)
WORDS = Grammar("regex", "([A-Z][a-z]{2}, ){3}(Oslo|Lima)!?")
TOKENIZER = Tokenizer.load(CAPITALS)
EOS = set(TOKENIZER.eos_token_ids)
PROMPT = unpack(TOKENIZER.encode("The capital of France", add_special_tokens=True)).tolist()


@pytest.fixture(scope="module")
def engines(loop: asyncio.Runner) -> Iterator[tuple[TransformersEngine, TransformersEngine]]:
    """Two exact engines of the demonstration model, which has a tokenizer."""

    @asynccontextmanager
    async def both() -> AsyncIterator[tuple[TransformersEngine, TransformersEngine]]:
        options: dict[str, Any] = {"model": str(CAPITALS), "deterministic": True}
        async with running(**options) as one, running(**options) as other:
            yield one, other

    context = both()
    yield loop.run(context.__aenter__())
    loop.run(context.__aexit__(None, None, None))


def guided(number: int, grammar: Grammar = JSON, **sampling: Any) -> Request:
    settings = {"max_tokens": 200, "ignore_eos": False, "grammar": grammar} | sampling
    return request(number, PROMPT, **settings)


def text(result: Result) -> str:
    return TOKENIZER.decode(result.tokens)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 3}, {"logprobs": 2}])
def test_an_answer_fits_its_schema_and_ends_by_itself(
    engines: Any, loop: asyncio.Runner, sampling: dict[str, Any]
) -> None:
    requests = [guided(1, **sampling), guided(2, seed=9, temperature=1.0)]
    results = loop.run(play(engines[0], requests))
    for result in results.values():
        found = json.loads(text(result))
        assert set(found) == {"country", "name", "size"}
        assert found["country"] in {"France", "Spain"}
        assert result.finish is Finish.STOP
        assert EOS.isdisjoint(result.tokens)


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        (Grammar("regex", "[a-c]{4}(x|y)"), "[a-c]{4}[xy]"),
        (Grammar("choice", '["Madrid (x)", "Rome"]'), r"Madrid \(x\)|Rome"),
        (Grammar("grammar", 'start: "a"~2 " b"'), "aa b"),
    ],
)
def test_every_kind_of_grammar_is_followed_even_against_ignore_eos_and_min_tokens(
    engines: Any, loop: asyncio.Runner, grammar: Grammar, pattern: str
) -> None:
    asked = guided(1, grammar, ignore_eos=True, min_tokens=100, temperature=2.0)
    [result] = loop.run(play(engines[0], [asked])).values()
    assert re.fullmatch(pattern, text(result))
    assert result.finish is Finish.STOP


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 5}])
def test_after_a_loss_at_any_token_another_engine_goes_on_with_the_same_tokens(
    engines: Any, loop: asyncio.Runner, sampling: dict[str, Any]
) -> None:
    whole = loop.run(play(engines[0], [guided(1, WORDS, **sampling)]))[1]
    assert len(whole.tokens) > 5
    cuts = range(1, len(whole.tokens) + 1)
    resumed = [
        Request(
            cut,
            packed([*PROMPT, *whole.tokens[:cut]]),
            guided(cut, WORDS, **sampling).sampling,
            resumed=cut,
        )
        for cut in cuts
    ]
    results = loop.run(play(engines[1], resumed))
    assert [results[cut].tokens for cut in cuts] == [whole.tokens[cut:] for cut in cuts]
    assert {result.finish for result in results.values()} == {Finish.STOP}


def test_a_handoff_goes_on_behind_its_first_token(engines: Any, loop: asyncio.Runner) -> None:
    context, generation = engines
    whole = loop.run(play(context, [guided(1)]))[1]
    sampling = guided(2).sampling
    prompt = packed(PROMPT)
    first = loop.run(play(context, [Request(2, prompt, sampling, "prefill")]))[2]
    assert first.handoff is not None
    decode = Request(3, prompt, sampling, "decode", first.handoff)
    rest = loop.run(play(generation, [decode]))[3]
    context.release(2)
    assert first.tokens + rest.tokens == whole.tokens


def test_tokens_that_left_the_grammar_are_an_error_of_that_request_alone(
    engines: Any, loop: asyncio.Runner
) -> None:
    stray = Request(1, packed([*PROMPT, 400]), guided(1).sampling, resumed=1)
    results = loop.run(play(engines[0], [stray, guided(2)]))
    assert results[1].finish is Finish.ERROR
    assert "cannot be followed" in results[1].error
    assert results[2].finish is Finish.STOP


def test_a_request_may_be_cancelled_while_its_grammar_is_compiled(
    engines: Any, loop: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Callable[[], None]] = []

    def hold(
        self: Guides, grammar: Grammar, tokens: Any, made: Callable[[Guide | None, str], None]
    ) -> None:
        held.append(lambda: self._make(grammar, list(tokens), made))

    async def cancel_it() -> dict[int, Result]:
        engine: TransformersEngine = engines[0]
        results = {1: Result()}
        engine.submit(guided(1))
        async with asyncio.timeout(PATIENCE_S):
            while not held:  # noqa: ASYNC110 - in another thread, which sets no event
                await asyncio.sleep(0.001)
        plain = await play(engine, [request(2, PROMPT)])  # others are served meanwhile
        assert len(plain[2].tokens) == 5
        engine.cancel(1)
        await read(engine, results)
        held.pop()()
        await settle(engine)
        assert (engine.load().waiting, engine.load().running) == (0, 0)
        return results

    with monkeypatch.context() as patch:
        patch.setattr(guides_module.Guides, "begin", hold)
        results = loop.run(cancel_it())
    assert results[1].finish is Finish.CANCELLED


def test_a_model_without_a_tokenizer_refuses(
    checkpoint: Callable[[str], str], loop: asyncio.Runner
) -> None:
    async def submit() -> None:
        async with running(model=checkpoint("llama")) as engine:
            with pytest.raises(RequestRefused, match=r"tokenizer\.json"):
                engine.submit(Request(1, packed([1]), Sampling(max_tokens=1, grammar=JSON)))

    loop.run(submit())
