"""Samples of call stacks, sorted by stage of a request's life. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

THE_REST = "event loop and the rest"
STAGES = (
    ("actors/runtime/process.py", THE_REST),  # below it the loop, and nothing else of ours
    ("actors/ingress/server/", "HTTP: connections and sockets"),
    ("actors/ingress/session/", "sessions: whose a token is, and is it next"),
    ("actors/ingress/", "requests and answers: JSON, choices, events"),
    ("actors/text/", "text: tokenising, detokenising"),
    ("actors/preprocessor/", "prompts: templates and words"),
    ("actors/chat.py", "prompts: templates and words"),
    ("actors/router/", "router: index, accounts, choice"),
    ("actors/kv/", "KV blocks: hashes, pool"),
    ("actors/engines/", "engine"),
    ("actors/worker/", "worker: jobs, history, reports"),
    ("actors/runtime/transport/", "NATS: packing, reading, writing"),
    ("actors/runtime/", "messages: mailboxes, addresses, decoding"),
    ("actors/messages/", "messages: mailboxes, addresses, decoding"),
)
"""The start of a file's path, and what is done there; the first that fits counts."""

IDLE = ("_worker (concurrent/futures/thread.py", "Thread.run (threading.py")
"""Threads that wait for work; py-spy cannot always tell."""


def stacks(raw: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """Read py-spy's raw form: frames from the outermost on, `name (file:line)` each, and how often
    the stack was seen. Waiting threads are left out."""
    for line in raw:
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if not frames[-1].startswith(IDLE):
            yield frames, int(count)


def stage_of(frames: Sequence[str]) -> str:
    """The stage of the innermost frame that is the project's own: what a library does for it is
    its doing."""
    for frame in reversed(frames):
        path = frame.rpartition(" (")[2]
        at = path.find("actors/")
        if at >= 0:
            return next((stage for start, stage in STAGES if path.startswith(start, at)), THE_REST)
    return THE_REST


def function_of(frames: Sequence[str]) -> str:
    """The innermost function, without its line."""
    return frames[-1].rpartition(":")[0] or frames[-1]


def shares(raw: Iterable[str], part_of: Callable[[Sequence[str]], str]) -> dict[str, float]:
    """The share of each part in all samples, the largest first."""
    found: Counter[str] = Counter()
    for frames, count in stacks(raw):
        found[part_of(frames)] += count
    total = sum(found.values())
    return {part: count / total for part, count in found.most_common()}
