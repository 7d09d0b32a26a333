"""Where a worker's model and tokenizer are found."""

from __future__ import annotations

from pathlib import Path

import msgspec

from actors.engines.simulated import SimulatedEngine
from actors.worker.engines import engine_name, make_engine, model_source, tokenizer_source
from actors.worker.options import WorkerOptions


def options(text: str) -> WorkerOptions:
    return msgspec.json.decode(text, type=WorkerOptions)


def test_a_directory_is_meant_relative_to_the_topology_file(tmp_path: Path) -> None:
    (tmp_path / "models" / "small").mkdir(parents=True)
    named = options('{"engine": {"kind": "transformers", "model": "models/small"}}')

    assert model_source(named.engine, tmp_path) == str(tmp_path / "models" / "small")
    assert tokenizer_source(named, tmp_path) == str(tmp_path / "models" / "small")


def test_a_name_without_a_directory_is_a_hub_id(tmp_path: Path) -> None:
    named = options('{"engine": {"kind": "transformers", "model": "owner/name"}}')

    assert model_source(named.engine, tmp_path) == "owner/name"
    assert tokenizer_source(named, tmp_path) == "owner/name"


def test_a_tokenizer_of_its_own_goes_before_the_model_s(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    engine = '"engine": {"kind": "transformers", "model": "owner/name"}'

    here = options(f'{{{engine}, "tokenizer": "words"}}')
    away = options(f'{{{engine}, "tokenizer": "owner/words"}}')

    assert tokenizer_source(here, tmp_path) == str(tmp_path / "words")
    assert tokenizer_source(away, tmp_path) == "owner/words"


def test_the_kind_says_which_engine_is_made(tmp_path: Path) -> None:
    simulated = options('{"engine": {"kind": "simulated"}}').engine

    assert engine_name(simulated) == "simulated"
    assert isinstance(make_engine(simulated, tmp_path), SimulatedEngine)
