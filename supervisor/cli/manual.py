"""The words of `--help`: what each command does, how it ends, what it reads. Examples stand beside
the options, in `arguments`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_WIDTH = 88
_DONE = (0, "done")
_USAGE = (2, "the command line or the topology is wrong; nothing was changed")
_NOT_RUNNING = (3, "no supervisor runs, it is not clear which one is meant, or it does not answer")
_STATE_DIR = "UNDERSTUDY_STATE_DIR"
_NO_COLOR = "NO_COLOR"
_COLUMNS = "COLUMNS"
_SLURM = ("SLURMD_NODENAME", "SLURM_NODEID")
_VARIABLES = MappingProxyType(
    {
        _STATE_DIR: "where run states are kept; --state-dir comes first "
        "(default $XDG_STATE_HOME/understudy, else ~/.local/state/understudy)",
        "NATS_SERVER": "URLs of the NATS to use where the topology does not say",
        "ETCD_ENDPOINTS": "endpoints of the etcd to use where the topology does not say",
        "SLURMD_NODENAME": "the node of the topology that this is, if it has one of that name",
        "SLURM_NODEID": "else the one at this place in its list, from 0; --node comes first",
        _NO_COLOR: "when set and not empty: no colours",
        _COLUMNS: "how wide a frame may be when the output is not a terminal",
        "PATH": "nats-server and etcd found here are used when newer than our own",
    }
)


class Manual(NamedTuple):
    """One command."""

    description: str
    """Paragraphs, separated by empty lines."""
    exits: tuple[tuple[int, str], ...]
    environment: tuple[str, ...]


_TARGET = """

Which supervisor is meant: the one of --namespace, the one of FILE where a file is taken, or else
the only one that runs."""

MANUALS: Mapping[str, Manual] = MappingProxyType(
    {
        "up": Manual(
            """\
Start everything the topology describes, in order, each child when the one before it is ready; then
stay, restart what falls, and stop everything in reverse order at the end.

On a terminal it says what happens in short lines; elsewhere it writes JSON lines to standard error.
The first Ctrl-C (or SIGTERM) stops in good order, the second kills.

`supervise FILE` is short for `supervise up FILE`.""",
            (
                (0, "it was told to stop, or its significant children had done their work"),
                (1, "it could not start, or gave up because children failed too often"),
                _USAGE,
                (130, "interrupted before anything was started"),
            ),
            (_STATE_DIR, "NATS_SERVER", "ETCD_ENDPOINTS", *_SLURM, "PATH", _NO_COLOR),
        ),
        "check": Manual(
            """\
Read a topology and say everything that is wrong with it, with file, line and what may have been
meant: names, types, addresses that clash, and the options of every actor.""",
            ((0, "it is valid"), _USAGE),
            ("NATS_SERVER", "ETCD_ENDPOINTS"),
        ),
        "ranks": Manual(
            """\
Be one rank of a program of MPI that is all workers of a topology: context servers first, each as
many consecutive ranks as its parallel sizes say, the first of which is the worker. The sum of the
ranks is the WORLD_SIZE that mpirun or srun has to start; without either, this says it.

Nothing else of the topology is started, and nothing is started again: with `launcher: mpi` in the
topology `supervise FILE` does both. NATS and etcd have to run. `gpus` is not looked at.""",
            (
                (0, "the workers were told to stop, and have"),
                (1, "there is no MPI here"),
                (2, "the topology is wrong, or no mpirun or srun has started this"),
                (70, "a worker failed, or a rank was lost"),
                (78, "mpirun has started another number of ranks, or an engine cannot run"),
            ),
            ("NATS_SERVER", "ETCD_ENDPOINTS"),
        ),
        "chat": Manual(
            """\
Load the engine of the first worker in a topology and talk to it: the answer is written as it is
generated, the conversation is kept. Ctrl-C stops an answer, Ctrl-D leaves, /help tells more. Lines
from a pipe are answered one after the other.

Nothing else of the topology is started: no NATS, no etcd, no HTTP. Without FILE it is
topologies/disagg.yaml of the working directory.""",
            ((0, "the input has ended"), (1, "the model could not be loaded"), _USAGE),
            (),
        ),
        "status": Manual(
            f"""\
Show the tree: the state of each child, its restarts, memory and CPU, why it last ended, and for
one that is down or fell within the last minute the last lines it wrote.

CPU is a share of one core over a quarter of a second; memory is the resident memory of the child's
process group. With --json one object is printed, whose counters (cpu_s, gauges.tokens, ...) two
calls can be compared by: clock_s is the time between them.{_TARGET}""",
            (_DONE, _USAGE, _NOT_RUNNING),
            (_STATE_DIR, _NO_COLOR),
        ),
        "certificates": Manual(
            """\
Make certificates for a topology on several nodes, whose NATS and etcd are started by it: an
authority (ca.pem, ca.key) and a pair for each node (NODE.pem, NODE.key), in the directory that the
topology names with `certificates:`. Servers show theirs and let in who shows one of the same
authority; so do the nodes with the servers. Run it once, then copy ca.pem and a node's own pair
to that node, to the same place. ca.key makes more of them, and belongs on no node.

What is there is kept: after a node was added, run it again. With --renew the nodes' pairs are made
anew; they count from the next start of each node.""",
            (
                _DONE,
                (1, "the directory cannot be written, or what is in it cannot be used"),
                _USAGE,
            ),
            (),
        ),
        "keys": Manual(
            """\
Write the file of API keys that an ingress with `options: {keys: FILE}` asks for. The key itself is
printed once, by create, and kept nowhere: the file holds its hash and what the key may take. A
running ingress notices a change within a second; nothing is restarted.""",
            (
                _DONE,
                (1, "there is such a key already, or none, or the file cannot be used"),
                _USAGE,
            ),
            (),
        ),
        "models": Manual(
            """\
List the names that clients may call models by, add one, or remove one that was added, while
serving. A worker's own name (option `model`) appears by itself and is for both kinds of request; an
added name is an alias of such a model, for one kind: chat for POST /v1/chat/completions, completion
for POST /v1/completions. A request of the other kind gets a 404 that says where the name is served.

Names that were added are kept in etcd. They hold for every ingress of the namespace, on all hosts,
within milliseconds, and outlive restarts of every role and of the supervisor. What is in progress
when a name is removed goes on to its end. Answers bear the name that was asked for; metrics and
`supervise status` count under the model's own.

With --json list prints an array of objects with `name`, `kinds`, `target` (null for a worker's own
name), `workers` and `served`; add and remove print what they did as one.""",
            (
                _DONE,
                (1, "there is such a name already, or none, or no such model; it says which"),
                _USAGE,
                _NOT_RUNNING,
            ),
            (_STATE_DIR,),
        ),
        "metrics": Manual(
            f"""\
Print what every process counts, in the text format that Prometheus scrapes: requests and tokens,
times to the first token and between tokens, stages, KV cache, mailboxes, restarts by reason. Each
series has the name of its node. A node that does not answer soon is left out, and
understudy_child_silent says so.

For Prometheus itself start with --web PORT: the same stands at /metrics of that port.{_TARGET}""",
            (_DONE, _USAGE, _NOT_RUNNING),
            (_STATE_DIR,),
        ),
        "top": Manual(
            f"""\
Show the tree live: state, restarts, CPU, memory, waiting messages, sequences in the batch and
before it, the share of KV blocks in use, tokens and requests a second, the lag of each event loop,
and below it what has just happened.

q or Ctrl-C leaves, the arrow keys (or j and k) scroll a tree that is higher than the screen. When
the output is not a terminal, one frame is printed. With --json one object is printed at each
interval, until interrupted. Columns: RST restarts, MBOX messages in the mailbox, OPEN requests in
hand, RUN and WAIT sequences in the engine, LAG how late the event loop is.{_TARGET}""",
            (_DONE, _USAGE, _NOT_RUNNING, (130, "interrupted, with --json")),
            (_STATE_DIR, _NO_COLOR, _COLUMNS),
        ),
        "logs": Manual(
            """\
Print the last lines of what children wrote to their standard output and standard error; of several
children each line with its child before it. Works on the files, so also when nothing runs any more,
if --namespace says whose they are. A log that has grown to 5 MiB is put aside at the child's next
start; three older ones are kept beside it.

With --json each line is an object with `child` and `line`.""",
            (_DONE, _USAGE, (3, "there is no such log, or no supervisor runs")),
            (_STATE_DIR,),
        ),
        "events": Manual(
            """\
Print what has lately happened: starts, readiness, ends with their reasons, restarts. With --follow
go on with what happens until the supervisor ends. The supervisor remembers the last 500.

With --json one object is printed for each, with the time as `at` in seconds since 1970.""",
            (_DONE, _USAGE, _NOT_RUNNING),
            (_STATE_DIR, _NO_COLOR),
        ),
        "route": Manual(
            """\
Show every worker that the router considers for a prompt: the tokens of it in the worker's cache
(and those that are expected there, because they were sent a moment ago), the tokens it has still to
compute and the KV blocks it holds for others, the requests it has in hand, and the cost in blocks;
and which one it would choose. Nothing is run. Asked is one of the routers; the prompt is tokenised
as any client's is. Options `explain: false` of the ingress forbids it.""",
            (
                _DONE,
                (1, "the service refused, or does not explain; it says why"),
                _USAGE,
                _NOT_RUNNING,
            ),
            (_STATE_DIR,),
        ),
        "restart": Manual(
            """\
Stop a child in its own polite way, start it again, and return when it is ready. It is not counted
as a restart. The name of an entry stands for all its replicas; they go down together, or with
--rolling one at a time, each ready before the next. Where a role has nobody else, --rolling starts
a stand-in before and dismisses it after, so that requests are served all the while; entries that
hold GPUs, or an ingress on port 0, have no stand-in unless the topology says `surge: true`.""",
            (_DONE, (1, "refused, or it did not become ready; it says why"), _USAGE, _NOT_RUNNING),
            (_STATE_DIR,),
        ),
        "scale": Manual(
            """\
Have N replicas of an entry. New ones are started after each other and are ready when this returns;
of those that are too many, the highest numbers finish their work and go.

The file does not learn of it: the next `apply` or SIGHUP brings back what the file says.""",
            (
                _DONE,
                (1, "refused, or one did not start: then everything is as before"),
                _USAGE,
                _NOT_RUNNING,
            ),
            (_STATE_DIR,),
        ),
        "drain": Manual(
            """\
Let one child finish the work it has in hand, stop it, and keep it stopped until `supervise
restart` brings it back; nothing else is touched. Returns when the process has ended.""",
            (_DONE, (1, "refused; it says why"), _USAGE, _NOT_RUNNING),
            (_STATE_DIR,),
        ),
        "log-level": Manual(
            """\
Have a child, all replicas of an entry, one actor of several in a process, or `all` write down
events from this level on, at once and without a restart. A process that starts anew has the level
again that the supervisor was started with (`--log-level`). NATS, etcd and other children that are
no nodes are not concerned.""",
            (_DONE, (1, "refused; it says why"), _USAGE, _NOT_RUNNING),
            (_STATE_DIR,),
        ),
        "apply": Manual(
            f"""\
Show what a topology would change in what runs (+ added, ~ changed, - removed, > moved), ask if
this is a terminal, and change it while serving. Only what differs is touched, new children are up
before old ones go, and changed ones are replaced one at a time as by `restart --rolling`. The same
file twice does nothing. A file with a mistake, or a child that does not start, leaves everything
as it was. SIGHUP to the supervisor applies the file it runs, as it is then.

Options that the supervisor was started with (--set, --port, --namespace) hold on; those given here
hold for this time. ${{NAME}} in the file is replaced from the supervisor's environment. NATS, etcd
and the namespace cannot be changed while it runs.{_TARGET}""",
            (
                (0, "it is applied, or there was nothing to change"),
                (1, "declined, refused, or taken back because a child did not start"),
                _USAGE,
                _NOT_RUNNING,
            ),
            (_STATE_DIR, _NO_COLOR),
        ),
        "down": Manual(
            f"""\
Tell a supervisor to stop everything in reverse order, and return when its process has ended.
Each child first finishes the work it has in hand, as long as its `drain` allows; --now does not
wait for that, --force kills everything at once.{_TARGET}""",
            (_DONE, _USAGE, _NOT_RUNNING),
            (_STATE_DIR,),
        ),
        "doctor": Manual(
            """\
Check what a service needs of this host: nats-server, etcd, open files, engine libraries, GPUs.

With a topology also whether its ports are free, and each engine it names is run in a process of its
own: imported, loaded, one prompt alone, one statistic, one KV cache event, one prompt handed over
between two engines whose answer must be the same. That takes as long as loading the model three
times.

With --json each check is an object with `name`, `outcome` (passed, failed, skipped) and `text`.""",
            (_DONE, (1, "something that is needed is missing or does not work"), _USAGE),
            ("PATH",),
        ),
        "schema": Manual(
            """\
Print the JSON Schema of topology files, for editors that complete and check YAML by one.""",
            (_DONE,),
            (),
        ),
        "completion": Manual(
            """\
Print a script that teaches a shell to complete commands, options, topology files, and the names of
namespaces and children. The script is static; for names it asks `supervise` at the moment of the
Tab.""",
            (_DONE, _USAGE),
            (),
        ),
        "version": Manual("Print the version.", (_DONE,), ()),
    }
)


def epilog(command: str, examples: str) -> str:
    """What stands below the options: exit codes, environment, examples."""
    parts = []
    manual = MANUALS.get(command)
    if manual is not None:
        parts.append(_section("exit codes", [(str(code), text) for code, text in manual.exits]))
        if manual.environment:
            names = [(name, _VARIABLES[name]) for name in manual.environment]
            parts.append(_section("environment", names))
    return "\n\n".join([*parts, examples])


def describe(command: str, summary: str) -> str:
    """What stands above the options."""
    manual = MANUALS.get(command)
    if manual is None:
        return f"{summary[:1].upper()}{summary[1:]}."
    paragraphs = manual.description.split("\n\n")
    return "\n\n".join(textwrap.fill(paragraph, _WIDTH) for paragraph in paragraphs)


def _section(title: str, entries: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in entries)
    lines = [
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"  {name:<{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
        for name, text in entries
    ]
    return "\n".join([f"{title}:", *lines])
