"""Checkpoints on disk, one a family, made once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from actors.engines.transformers import TransformersEngine, TransformersOptions
from tests.actors.engines.transformers.models import save_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The directory of a small random model of a family."""

    @cache
    def directory(family: str) -> str:
        path: Path = save_model(family, tmp_path_factory.mktemp(family))
        return str(path)

    return directory


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    """One event loop for engines that live as long as a module's tests."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def exact_engines(
    checkpoint: Callable[[str], str], loop: asyncio.Runner
) -> Iterator[tuple[TransformersEngine, TransformersEngine]]:
    """Two deterministic engines of one model, which can hand over to each other."""
    engines = tuple(
        TransformersEngine(
            TransformersOptions(
                model=checkpoint("llama"),
                kv_memory="2MiB",
                deterministic=True,
                max_step_tokens=step_tokens,
            )
        )
        for step_tokens in (48, 512)
    )
    for engine in engines:
        loop.run(engine.start())
    yield engines[0], engines[1]
    for engine in engines:
        loop.run(engine.close())
