"""The main job: disaggregated serving of a real model, through the official client, while actors
are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from tests.serving.conftest import MODEL, Service
from tests.supervisor.live import LOOPBACK, listening

pytestmark = pytest.mark.process

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
STORY = "Tell me a story."
DEADLINE_S = 60.0


def test_a_chat_is_answered(disagg: Service) -> None:
    assert disagg.ask(FRANCE) == PARIS


def test_nothing_of_a_service_can_be_reached_from_elsewhere(disagg: Service) -> None:
    ports = listening(disagg.live.base)

    assert disagg.port in ports
    # NATS, etcd for clients and for peers, the ingress, and the KV transfers of two workers.
    assert len(ports) >= 6, ports
    assert set(ports.values()) <= LOOPBACK, ports


def test_a_streamed_chat_is_answered_piece_by_piece(disagg: Service) -> None:
    stream = disagg.client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": FRANCE}],
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)

    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == PARIS
    assert len([piece for piece in pieces if piece]) > 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 3


def test_a_completion_is_continued(disagg: Service) -> None:
    answer = disagg.client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=10, temperature=0
    )

    assert answer.choices[0].text == " Paris."
    assert answer.choices[0].finish_reason == "stop"


def test_the_official_client_for_node_is_served(disagg: Service) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Node is not installed; `make clients` runs its clients where it is")
    folder = Path(__file__).parents[1] / "clients" / "node"
    quiet = ("--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline")
    subprocess.run(["npm", "install", *quiet], cwd=folder, check=True, timeout=300)
    done = subprocess.run(
        ["node", "openai.mjs", disagg.url, MODEL],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_prompt_is_computed_in_one_process_and_continued_in_another(disagg: Service) -> None:
    before = {row.id: row for row in disagg.live.status().children}

    disagg.ask(FRANCE)

    assert before["context/0"].pid != before["generation/0"].pid
    for worker in ("context.0", "generation.0"):
        log = disagg.live.layout("disagg").logs / f"{worker}.log"
        assert "error" not in log.read_text()


@pytest.mark.parametrize(
    "target",
    ["generation/0", "context/0", "router/0", "preprocessor/0", "ingress/0", "nats", "etcd"],
)
def test_the_service_answers_again_without_help_after_a_kill(disagg: Service, target: str) -> None:
    disagg.live.kill(target)

    disagg.live.until("child_ready", child=target)

    assert _ask_until_answered(disagg) == PARIS


@pytest.mark.parametrize("target", ["generation/0", "context/0", "router/0", "preprocessor/0"])
def test_a_stream_goes_on_when_an_actor_is_killed_under_it(disagg: Service, target: str) -> None:
    expected = disagg.ask(STORY)
    begun = threading.Event()

    def read() -> str:
        text = ""
        stream = disagg.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": STORY}],
            temperature=0,
            stream=True,
        )
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            begun.set()
        return text

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        assert begun.wait(DEADLINE_S)
        disagg.live.kill(target)

        assert reading.result(DEADLINE_S) == expected
    disagg.live.until("child_ready", child=target)


def test_a_guided_stream_goes_on_when_its_worker_is_killed(disagg: Service) -> None:
    schema = {
        "type": "array",
        "items": {"enum": ["Paris", "Rome", "Oslo", "Lima"]},
        "minItems": 20,
        "maxItems": 20,
    }

    def ask() -> Iterator[str]:
        stream = disagg.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": STORY}],
            temperature=1.0,
            seed=7,
            stream=True,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )
        return (chunk.choices[0].delta.content or "" for chunk in stream)

    expected = "".join(ask())
    assert len(json.loads(expected)) == 20

    pieces = ask()
    begin = [next(pieces) for _ in range(8)]
    disagg.live.kill("generation/0")

    assert "".join([*begin, *pieces]) == expected
    disagg.live.until("child_ready", child="generation/0")


def test_requests_in_flight_at_a_killed_ingress_end_in_an_error_and_none_hangs(
    disagg: Service,
) -> None:
    expected = disagg.ask(STORY)

    def ask() -> str:
        try:
            return disagg.ask(STORY)
        except openai.APIConnectionError:
            return "connection lost"

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        disagg.live.kill("ingress/0")
        outcomes = [one.result(DEADLINE_S) for one in asking]

    disagg.live.until("child_ready", child="ingress/0")
    assert set(outcomes) <= {"connection lost", expected}


def test_a_terminated_service_leaves_nothing_behind(disagg: Service) -> None:
    """The last one: it ends what all of this file share."""
    assert _ask_until_answered(disagg) == PARIS
    pids = [row.pid for row in disagg.live.status().children if row.pid is not None]
    disagg.live.process.send_signal(signal.SIGINT)

    assert disagg.live.wait() == 0
    assert len(pids) >= 9
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not disagg.live.layout("disagg").socket.exists()


def _ask_until_answered(service: Service) -> str:
    """While the registry's news spreads a request may be told to come again."""
    for _ in range(200):
        try:
            return service.ask(FRANCE)
        except (openai.InternalServerError, openai.APIConnectionError):
            threading.Event().wait(0.05)
    raise AssertionError("the service does not answer again")
