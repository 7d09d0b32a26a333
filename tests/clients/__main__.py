"""Other people's clients against a service: `make clients`, or

    python -m tests.clients [--url URL] [NAME ...]

Each is installed into an environment of its own below `.venv-clients` (guidellm's has torch, and
takes 6 GB), in the version that is written here, run, and judged by what it says. Without `--url` a
service is started: `topologies/disagg.yaml`, and `simulated.yaml` for the second run of those that
measure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.plane import free_port
from tests.supervisor.live import running

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".venv-clients"
CAPITALS = ROOT / "topologies" / "models" / "capitals"
MODEL = "understudy/capitals"
ANSWER = "The capital of France is Paris."
TIME_S = 600
NONE_LOST = {"errored": 0, "incomplete": 0}
LOAD = ("aiperf", "guidellm")
"""Those that measure: run against `simulated.yaml`, too."""


class Failed(Exception):
    """A client did not do what it should; the text says what it did."""


class Run(NamedTuple):
    """What a client needs to know."""

    url: str
    model: str
    scratch: Path

    def do(self, *command: str | Path, **environ: str) -> str:
        """Run a command to its end; what it printed. Raises Failed."""
        done = subprocess.run(
            command,
            cwd=self.scratch,
            env={**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "COLUMNS": "140", **environ},
            capture_output=True,
            text=True,
            timeout=TIME_S,
            check=False,
        )
        if done.returncode:
            raise Failed(f"exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout


def binary(client: str, name: str) -> Path:
    """A program of a client's environment."""
    return ENVIRONMENTS / client / "bin" / name


def script(client: str) -> Callable[[Run], str]:
    """A client that is used by a program of ours."""

    def use(run: Run) -> str:
        file = HERE / "scripts" / f"{client}_client.py"
        local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        return run.do(binary(client, "python"), file, run.url, run.model, **local)

    return use


def llm(run: Run) -> str:
    """Simon Willison's `llm`: a stream, a whole answer, a schema, and the same conversation on."""
    model = {"model_id": "capitals", "model_name": run.model, "api_base": f"{run.url}/v1"}
    model |= {"supports_schema": True, "supports_tools": True}  # type: ignore[dict-item]
    (run.scratch / "extra-openai-models.yaml").write_text(json.dumps([model]))
    own = {"LLM_USER_PATH": str(run.scratch), "OPENAI_API_KEY": "unused"}
    ask = (binary("llm", "llm"), "-m", "capitals", "-o", "temperature", "0")
    question = "What is the capital of France?"
    said = [run.do(*ask, *more, question, **own).strip() for more in ((), ("--no-stream",))]
    schema = '{"type":"object","properties":{"n":{"enum":[7]}},"required":["n"]'
    found = run.do(*ask, "--schema", schema + ',"additionalProperties":false}', "How many?", **own)
    said.append(json.dumps(json.loads(found)))
    said.append(run.do(*ask, "-c", "And of Germany?", **own).strip())
    if said[:3] != [ANSWER, ANSWER, '{"n": 7}']:
        raise Failed(str(said))
    return "\n".join(said)


def curl(run: Run) -> str:
    """`curl -N`, by hand."""
    asked = {"model": run.model, "prompt": "The capital of France is", "max_tokens": 4}
    body = json.dumps({**asked, "temperature": 0, "stream": True})
    head = ("-H", "Content-Type: application/json")
    said = run.do("curl", "-sSN", "--fail", f"{run.url}/v1/completions", *head, "-d", body)
    events = [line for line in said.splitlines() if line]
    if events[-1] != "data: [DONE]" or not all(line.startswith("data: ") for line in events):
        raise Failed(said)
    return said.strip()


def node(run: Run) -> str:
    """OpenAI's client and Vercel's AI SDK, by npm."""
    folder = HERE / "node"
    quiet = ("--silent", "--no-audit", "--no-fund", "--no-package-lock")
    run.do("npm", "install", "--prefix", folder, *quiet)
    said = (run.do("node", folder / file, run.url, run.model) for file in ("openai.mjs", "ai.mjs"))
    return "".join(said)


def aiperf(run: Run) -> str:
    """NVIDIA's load generator; what it prints is its own table."""
    out = run.do(
        *(binary("aiperf", "aiperf"), "profile", "--model", run.model, "--url", run.url),
        *("--endpoint-type", "chat", "--streaming", "--use-server-token-count"),
        *("--tokenizer", CAPITALS, "--concurrency", "8", "--request-count", "128"),
        *("--synthetic-input-tokens-mean", "64", "--synthetic-input-tokens-stddev", "0"),
        *("--output-tokens-mean", "32", "--extra-inputs", "ignore_eos:true"),
        *("--no-gpu-telemetry", "--ui", "none", "--artifact-dir", run.scratch / "aiperf"),
    )
    found = json.loads((run.scratch / "aiperf" / "profile_export_aiperf.json").read_bytes())
    if found["request_count"]["avg"] != 128 or found.get("error_request_count"):
        raise Failed(out)
    return table(out, "NVIDIA AIPerf | LLM Metrics")


def guidellm(run: Run) -> str:
    """vLLM's load generator."""
    out = run.do(
        *(binary("guidellm", "guidellm"), "run"),
        *("--backend", f"kind=openai_http,target={run.url},model={run.model}"),
        *("--tokenizer", f"kind=huggingface_auto,model={CAPITALS}"),
        *("--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=64"),
        *("--data", "kind=synthetic_text,prompt_tokens=64,output_tokens=32"),
        *("--output", f"kind=json,path={run.scratch / 'guidellm.json'}"),
        *("--output", "kind=console", "--disable-console-interactive"),
    )
    [found] = json.loads((run.scratch / "guidellm.json").read_bytes())["benchmarks"]
    if found["metrics"]["request_totals"] != {**NONE_LOST, "successful": 64, "total": 64}:
        raise Failed(out[-3000:])
    titles = (
        "Request Latency Statistics (Completed Requests)",
        "Server Throughput Statistics (All Requests)",
    )
    return "\n\n".join(table(out, title) for title in titles)


def table(out: str, title: str) -> str:
    """From the line that ends with a title to the end of the table below it."""
    lines = [line.rstrip() for line in out.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.endswith(title))
    end = next(n for n, line in enumerate([*lines, ""]) if n > start + 3 and not line.strip())
    return "\n".join(lines[start:end])


CLIENTS: dict[str, tuple[str, Callable[[Run], str]]] = {
    "curl": ("", curl),
    "node": ("", node),
    "langchain": ("langchain-openai==1.7.4", script("langchain")),
    "litellm": ("litellm==1.110.2", script("litellm")),
    "llm": ("llm==0.36", llm),
    "aiperf": ("aiperf==0.13.0", aiperf),
    "guidellm": ("guidellm==0.8.1", guidellm),
}


def install(name: str, requirement: str) -> None:
    """Make a client's environment, unless it is there."""
    mark = ENVIRONMENTS / name / ".installed"
    if not requirement or (mark.exists() and mark.read_text() == requirement):
        return
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / name], check=True)
    pip = (binary(name, "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, requirement], check=True)
    mark.write_text(requirement)


@contextmanager
def served(topology: str) -> Iterator[str]:
    """The address of a service that is started for this, and stopped."""
    port = free_port()
    with tempfile.TemporaryDirectory() as base:
        file = str(ROOT / "topologies" / topology)
        with running(Path(base), file, "--port", str(port)) as live:
            live.until("ready")
            yield f"http://127.0.0.1:{port}"


def attempt(name: str, title: str, url: str, model: str) -> bool:
    """Run one client, and print what it said."""
    print(f"== {title}", flush=True)
    if name in {"curl", "node"} and shutil.which(name) is None:
        print(f"-- {name} is not installed: not tried", flush=True)
        return True
    try:
        with tempfile.TemporaryDirectory() as scratch:
            print(CLIENTS[name][1](Run(url, model, Path(scratch))).rstrip(), flush=True)
    except (Failed, subprocess.TimeoutExpired) as error:
        print(f"-- failed: {error}", flush=True)
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CLIENTS)}")
    parser.add_argument("--url", help=f"a service that has the model {MODEL}")
    options = parser.parse_args()
    if unknown := set(options.names) - CLIENTS.keys():
        parser.error(f"no client is called {', '.join(sorted(unknown))}")
    names = options.names or list(CLIENTS)
    for name in names:
        install(name, CLIENTS[name][0])
    right = True
    with ExitStack() as stack:
        url = options.url or stack.enter_context(served("disagg.yaml"))
        for name in names:
            title = f"{CLIENTS[name][0] or name} ({'disagg.yaml' if not options.url else url})"
            right &= attempt(name, title, url, MODEL)
    if not options.url and not set(LOAD).isdisjoint(names):
        with served("simulated.yaml") as url:
            for name in LOAD:
                if name in names:
                    right &= attempt(name, f"{name} (simulated.yaml)", url, "simulated")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
