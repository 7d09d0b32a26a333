"""`supervise route explain`: where a prompt would go, and why. The router is asked by way of an
ingress, so that the prompt is tokenised just as a client's is."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from actors.messages.explain import Candidate, Explained
from supervisor.calls import GetStatus, Status
from supervisor.cli.arguments import Options
from supervisor.cli.ask import EXIT_DENIED, ask, refused

TIMEOUT_S = 15.0
_HEADERS = ("WORKER", "FOR", "CACHED", "TO COMPUTE", "HOLDS", "REQUESTS", "COST", "")


class RouteError(Exception):
    """The service did not explain; the text says why."""


def route(options: Options, environ: Mapping[str, str]) -> int:
    """Show the candidates for a prompt, their costs, and the choice."""
    answer = ask(options, environ, GetStatus())
    if not isinstance(answer, Status):
        return refused(answer)
    try:
        explained = explain(answer, options, _prompt(options))
    except (RouteError, OSError) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_DENIED
    if options.as_json:
        fields = {name: getattr(explained, name) for name in Explained.__struct_fields__[1:]}
        print(msgspec.json.format(msgspec.json.encode(fields)).decode())
    else:
        print("\n".join(render(explained)))
    return 0


def explain(status: Status, options: Options, prompt: str) -> Explained:
    """Ask an ingress of the service for a dry run. Raises RouteError."""
    if not status.urls:
        raise RouteError("the service has no ingress that listens")
    model = options.model or (status.models[0] if status.models else "")
    body: dict[str, Any] = {"model": model, "max_tokens": 1}
    if options.chat:
        path, body["messages"] = "chat/completions", [{"role": "user", "content": prompt}]
    else:
        path, body["prompt"] = "completions", prompt
    headers = {"Content-Type": "application/json", "x-understudy-explain": "only"}
    if options.strategy:
        headers["x-understudy-strategy"] = options.strategy
    if options.session:
        headers["x-understudy-session"] = options.session
    request = urllib.request.Request(  # noqa: S310 - the supervisor's own http address
        f"{status.urls[0]}/v1/{path}", json.dumps(body).encode(), headers
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - same
            return msgspec.json.decode(response.read(), type=Explained)
    except urllib.error.HTTPError as error:
        raise RouteError(f"the service refused: {_message(error.read())}") from None
    except msgspec.MsgspecError:
        raise RouteError("the service does not explain: its ingress has `explain: false`") from None


def _prompt(options: Options) -> str:
    """What was given, a file, or the standard input. Raises OSError."""
    if options.prompt is not None:
        return options.prompt
    if options.prompt_file is not None:
        return options.prompt_file.read_text(encoding="utf-8")
    return sys.stdin.read()


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")


def render(explained: Explained) -> list[str]:
    """The explanation as lines of text."""
    rows = [_HEADERS, *(_row(one) for one in explained.candidates)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    queue = f", {explained.queue} waiting" if explained.queue else ""
    admitted = "at once" if explained.admitted else "after a wait in the queue"
    return [
        (
            f"{explained.prompt_tokens} tokens, blocks of {explained.block_tokens}, strategy "
            f"{explained.strategy}, {explained.decision_us:.0f} us to decide{queue}"
        ),
        "",
        *lines,
        "",
        f"{explained.decision}; {admitted}.",
    ]


def _row(one: Candidate) -> tuple[str, ...]:
    predicted = f" ({one.predicted_tokens} expected)" if one.predicted_tokens else ""
    return (
        one.worker,
        one.leg,
        f"{one.matched_tokens}{predicted}",
        str(one.prefill_tokens),
        str(one.decode_blocks),
        str(one.requests),
        "-" if one.cost is None else f"{one.cost:.1f}",
        "<- chosen" if one.chosen else ("suspected" if one.suspected else ""),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Names to the left, numbers to the right."""
    cells = [
        cell.ljust(width) if at in {0, 1, len(row) - 1} else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
