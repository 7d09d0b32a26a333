"""`supervise doctor` on this host, with engines that run here and one that cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.actors.engines.tensorrt_llm.fixtures import STANDIN, save_model

pytestmark = pytest.mark.process

ENGINE_CHECKS = {
    "one prompt, aggregated",
    "one statistic",
    "one KV event",
    "one prompt, disaggregated",
}


def doctor(file: Path | None, **environ: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and each check by its name."""
    arguments = [] if file is None else [str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        timeout=120,
    )
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert findings, done.stderr
    return done.returncode, {finding["name"]: finding for finding in findings}


def topology(directory: Path, engine: str) -> Path:
    path = directory / "x.yaml"
    path.write_text(f"children:\n  - actor: aggregated\n    options: {{engine: {engine}}}\n")
    return path


def test_a_host_is_checked_without_a_topology() -> None:
    code, found = doctor(None)

    assert code == 0
    assert found["nats-server"]["outcome"] == found["etcd"]["outcome"] == "passed"
    assert found["engine"]["outcome"] == "skipped"


def test_an_engine_that_runs_passes_every_check(tmp_path: Path) -> None:
    code, found = doctor(topology(tmp_path, "{kind: simulated, speedup: 0}"))

    assert {found[name]["outcome"] for name in ENGINE_CHECKS} == {"passed"}
    assert code == 0


def test_tensorrt_llm_is_run_for_real_where_it_can_be_imported(tmp_path: Path) -> None:
    file = topology(tmp_path, f"{{kind: tensorrt_llm, model: {save_model(tmp_path)}}}")
    environ = {"PYTHONPATH": str(STANDIN), "TENSORRT_LLM_STANDIN": "1.3"}

    code, found = doctor(file, TENSORRT_LLM_STANDIN_WORLD=str(tmp_path), **environ)

    assert found["TensorRT-LLM"]["text"].startswith("version 1.3.0rc3: hands over")
    assert {found[name]["outcome"] for name in ENGINE_CHECKS} == {"passed"}
    assert code == 0


def test_where_it_cannot_be_imported_the_doctor_says_so(tmp_path: Path) -> None:
    code, found = doctor(topology(tmp_path, f"{{kind: tensorrt_llm, model: {tmp_path}}}"))

    assert found["TensorRT-LLM"]["outcome"] == "failed"
    assert "cannot be imported here" in found["TensorRT-LLM"]["text"]
    assert code == 1


def test_an_engine_that_does_not_load_is_told_with_its_reason(tmp_path: Path) -> None:
    faults = "{kind: simulated, faults: [{do: refuse_start}]}"
    code, found = doctor(topology(tmp_path, faults))

    assert found["simulated: aggregated"]["text"] == "the fault script refuses to start"
    assert code == 1


def test_the_log_level_may_come_from_the_environment_and_must_be_one() -> None:
    command = [sys.executable, "-m", "supervisor", "version"]
    ends = {
        level: subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "UNDERSTUDY_LOG_LEVEL": level},
        )
        for level in ("DEBUG", "loud")
    }

    assert (ends["DEBUG"].returncode, ends["loud"].returncode) == (0, 2)
    assert "UNDERSTUDY_LOG_LEVEL: expected one of debug" in ends["loud"].stderr
