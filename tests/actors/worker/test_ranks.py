from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from actors.worker.__main__ import Place, main, place_of
from actors.worker.engines import ranks_of
from actors.worker.options import WorkerOptions


def test_consecutive_ranks_make_up_a_server_and_the_first_one_leads() -> None:
    """One context server of one rank, two generation servers of two: WORLD_SIZE 5."""
    places = [place_of(rank, [1, 2, 2]) for rank in range(5)]

    servers = [Place(0, 0, 1), Place(1, 1, 2), Place(2, 3, 2)]
    assert places == [servers[0], servers[1], servers[1], servers[2], servers[2]]
    assert [rank for rank, place in enumerate(places) if rank == place.first] == [0, 1, 3]
    with pytest.raises(ValueError, match="rank 5 is beyond the 5 ranks of 3 servers"):
        place_of(5, [1, 2, 2])


def test_an_engine_that_is_not_split_is_one_rank() -> None:
    simulated = msgspec.convert({"engine": {"kind": "simulated"}}, WorkerOptions)
    split = {"engine": {"kind": "transformers", "model": "m", "tensor_parallel_size": 4}}

    assert ranks_of(simulated, Path()) == 1
    assert ranks_of(msgspec.convert(split, WorkerOptions), Path()) == 4


def test_tensorrt_llm_has_a_rank_for_each_part_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("model_name: m\ntensor_parallel_size: 4\n")
    engine = {"kind": "tensorrt_llm", "engine_args": "args.yaml"}
    wrong = {**engine, "arguments": {"pipeline_parallel_size": "two"}}

    def ranks(engine: object) -> int:
        return ranks_of(msgspec.convert({"engine": engine}, WorkerOptions), tmp_path)

    assert ranks(engine) == 4
    assert ranks({**engine, "arguments": {"pipeline_parallel_size": 2}}) == 8
    with pytest.raises(ValueError, match="pipeline_parallel_size: expected a number"):
        ranks(wrong)


def test_a_file_that_is_no_node_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "missing.json")]) == 78
    assert "missing.json" in capsys.readouterr().err
