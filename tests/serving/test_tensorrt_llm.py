"""A whole service on the stand-in of TensorRT-LLM, from TensorRT-LLM's own configuration files."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml
from openai import OpenAI

from actors.runtime.pids import process_started
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun
from supervisor.topology import check_options, read
from tests.actors.engines.tensorrt_llm.fixtures import STANDIN
from tests.plane import free_port
from tests.serving.conftest import SLOW_S, TOPOLOGIES, Service, serving
from tests.supervisor.live import environment, supervise

pytestmark = pytest.mark.process

MODEL = "test/model"
WORKERS = ("context/0", "generation/0", "generation/1")
PROMPT = "The capital of France is the one and only city that"


def _topology(directory: Path, name: str = "disagg", **entry: object) -> Path:
    """A shipped topology, on a model that is here, without asking for GPUs; with `entry` at its
    workers."""
    shipped = yaml.safe_load((TOPOLOGIES / "tensorrt_llm" / f"{name}.yaml").read_text())
    arguments = yaml.safe_load((TOPOLOGIES / "tensorrt_llm" / "llm_api_config.yaml").read_text())
    arguments |= {"model_name": MODEL, "model_path": str(TOPOLOGIES / "models" / "capitals")}
    (directory / "llm_api_config.yaml").write_text(yaml.safe_dump(arguments))
    servers, *_ = shipped["children"]
    if "disaggregated_config" in servers:
        file = TOPOLOGIES / "tensorrt_llm" / servers["disaggregated_config"]
        servers |= {"disaggregated_config": str(file)}
    servers |= {
        "gpus": 0,
        "env": {
            "PYTHONPATH": str(STANDIN),
            "TENSORRT_LLM_STANDIN": "1.2",
            "TENSORRT_LLM_STANDIN_WORLD": str(directory),
        },
        **entry,
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(shipped))
    return path


def _ask(service: Service, count: int) -> str:
    # The registry's news of an only worker may still be on its way: told to, a client comes again.
    answer = service.client.with_options(max_retries=5).completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=count, temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == count
    return answer.choices[0].text


def test_the_example_s_files_serve_and_a_killed_worker_comes_back_cold(tmp_path: Path) -> None:
    with serving(tmp_path, str(_topology(tmp_path))) as service:
        assert [model.id for model in service.client.models.list()] == [MODEL]
        before = _ask(service, 20)

        stream = service.client.completions.create(
            model=MODEL, prompt=PROMPT, max_tokens=200, temperature=0, stream=True,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        pieces = [next(stream).choices[0].text]
        service.live.kill("generation/0")
        pieces += [chunk.choices[0].text for chunk in stream if chunk.choices]

        service.live.until("child_ready", child="generation/0")
        assert "".join(pieces).startswith(before)
        assert "".join(pieces) == _ask(service, 200)


@pytest.mark.long
@pytest.mark.parametrize("name", ["aggregated", "kv_routing"])
def test_the_other_shipped_topologies_serve_too(tmp_path: Path, name: str) -> None:
    with serving(tmp_path, str(_topology(tmp_path, name))) as service:
        assert _ask(service, 20) == _ask(service, 20)


def _leaders(service: Service) -> dict[str, int]:
    rows = service.live.status().children
    return {row.id: row.pid or 0 for row in rows if row.id in WORKERS}


@pytest.mark.long
def test_servers_under_one_mpirun_lose_a_rank_and_one_server_comes_back(tmp_path: Path) -> None:
    """As on TensorRT-LLM's page, with two generation servers of two ranks: WORLD_SIZE 5."""
    config = yaml.safe_load((TOPOLOGIES / "tensorrt_llm" / "single_node_config.yaml").read_text())
    config["generation_servers"] |= {
        "num_instances": 2, "tensor_parallel_size": 2, "urls": ["localhost:8002", "localhost:8003"]
    }  # fmt: skip
    file = tmp_path / "servers.yaml"
    file.write_text(yaml.safe_dump(config))
    entry = {"disaggregated_config": str(file), "launcher": "mpi", "world": "servers"}
    with serving(tmp_path, str(_topology(tmp_path, **entry)), slow=WORKERS) as service:
        expected = _ask(service, 20)
        ranks = [
            msgspec.json.decode((tmp_path / f"rank-{rank}.json").read_bytes()) for rank in range(5)
        ]
        assert [(one["size"], one["world"]) for one in ranks] == [(1, 5), *[(2, 5)] * 4]
        before = _leaders(service)
        assert list(before.values()) == [ranks[0]["pid"], ranks[1]["pid"], ranks[3]["pid"]]

        os.kill(ranks[2]["pid"], signal.SIGKILL)  # it follows generation/0
        assert [_ask(service, 20) for _ in range(4)] == [expected] * 4

        service.live.until("child_ready", within_s=SLOW_S, child="generation/0")
        after = _leaders(service)
        moved = [name for name, pid in after.items() if pid != before[name]]
        assert moved == ["generation/0"]
        assert [_ask(service, 20) for _ in range(4)] == [expected] * 4


def _launched(directory: Path, **entry: object) -> Path:
    """Two ranks, and the script that stands in for TensorRT-LLM's on the PATH."""
    path = _topology(directory, "aggregated", **entry)
    shipped = yaml.safe_load(path.read_text())
    worker = shipped["children"][0]
    worker["options"]["engine"]["arguments"] = {"tensor_parallel_size": 2}
    worker["env"]["PATH"] = f"{STANDIN / 'bin'}:{os.environ['PATH']}"
    path.write_text(yaml.safe_dump(shipped))
    return path


def _ranks(directory: Path) -> list[dict[str, int]]:
    files = (directory / f"rank-{rank}.json" for rank in range(2))
    return [msgspec.json.decode(file.read_bytes()) for file in files]


@pytest.mark.long
def test_a_worker_under_tensorrt_llm_s_launcher_comes_back_with_new_ranks(tmp_path: Path) -> None:
    topology = _launched(tmp_path, launcher="trtllm-llmapi-launch")
    with serving(tmp_path, str(topology), slow=["aggregated/0"]) as service:
        expected = _ask(service, 20)
        before = _ranks(tmp_path)
        assert [(one["rank"], one["size"], one["world"]) for one in before] == [
            (0, 2, 2), (1, 2, 2)
        ]  # fmt: skip
        for victim in ("the worker, which is no rank", "a rank", "mpirun"):
            if victim == "mpirun":
                service.live.kill("aggregated/0")
            else:
                pid = before[1]["pid"] if victim == "a rank" else _worker_pid(tmp_path)
                os.kill(pid, signal.SIGKILL)
            service.live.until("child_ready", within_s=SLOW_S, child="aggregated/0")
            after = _ranks(tmp_path)
            assert {one["pid"] for one in after}.isdisjoint(one["pid"] for one in before)
            assert _ask(service, 20) == expected
            before = after
    assert not _lives(before)


def _worker_pid(directory: Path) -> int:
    """The node's process, which mpirun and the script are only around."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it has just ended
        if words[2:4] == ["-m", "actors.runtime.process"] and words[4].startswith(str(directory)):
            return int(entry.name)
    raise AssertionError("there is no worker")


def _lives(ranks: list[dict[str, int]]) -> bool:
    return any(process_started(one["pid"]) for one in ranks)


@pytest.mark.long
@pytest.mark.parametrize("ends", ["asked to", "its worker killed"])
def test_a_service_inside_of_the_launcher_ends_with_its_worker(tmp_path: Path, ends: str) -> None:
    port, variables = free_port(), environment(tmp_path)
    variables |= {"PATH": f"{STANDIN / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    variables |= yaml.safe_load(_launched(tmp_path).read_text())["children"][0]["env"] | {
        "PATH": variables["PATH"], **ENVIRONMENT
    }  # fmt: skip
    up = (sys.executable, "-m", "supervisor", "up", str(tmp_path / "aggregated.yaml"))
    words = command(find_mpirun(os.environ), 2, ("trtllm-llmapi-launch", *up, "--port", str(port)))
    with (tmp_path / "log").open("w") as log:
        around = subprocess.Popen(words, env=variables, stdout=log, stderr=log)
    try:
        client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=100)
        answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5)
        assert answer.choices[0].finish_reason == "length"
        ranks = _ranks(tmp_path)
        if ends == "asked to":
            assert supervise(tmp_path, "down").returncode == 0
        else:
            os.kill(_worker_pid(tmp_path), signal.SIGKILL)
        assert (around.wait(SLOW_S) == 0) is (ends == "asked to"), (tmp_path / "log").read_text()
        assert not _lives(ranks)
    finally:
        around.kill()
        around.wait()


@pytest.mark.parametrize("name", ["aggregated", "disagg", "kv_routing"])
def test_each_shipped_topology_is_accepted(name: str) -> None:
    reading = read(TOPOLOGIES / "tensorrt_llm" / f"{name}.yaml", environ=os.environ)

    asyncio.run(check_options(reading))

    workers = {
        "aggregated": ["aggregated/0"],
        "disagg": ["context/0", "generation/0"],
        "kv_routing": [*(f"context/{n}" for n in range(4)), "generation/0"],
    }
    names = [instance.name for instance in reading.topology.node_instances()]
    assert names == [*workers[name], "router/0", "preprocessor/0", "ingress/0"]
