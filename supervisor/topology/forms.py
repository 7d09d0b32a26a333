"""The file as it may be written: what `reader` decodes into before it makes a `model.Topology`.

These structs exist because one thing can be said in several forms (a URL or a list or a mapping; a
node of one actor or of many), and because the JSON Schema describes the file, not its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

import msgspec

from actors.runtime.options import Forms
from actors.runtime.tracing import TracingSettings
from supervisor.topology.amounts import parse_bytes, parse_cpus
from supervisor.topology.durations import parse_duration, parse_shutdown
from supervisor.topology.model import Policy, Port, PositiveSeconds, Restart, Supervision, Tls

_NAME_PATTERN = "[a-z][a-z0-9_-]{0,62}"
_NAMESPACE_PATTERN = "[a-z0-9-]{1,63}"
_MACHINE_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_VARIABLE_PATTERN = "[A-Za-z_][A-Za-z0-9_]*"

Name: TypeAlias = Annotated[str, msgspec.Meta(pattern=f"^{_NAME_PATTERN}$", extra={"form": "name"})]
"""What `actors.runtime.address` takes as a role."""
Namespace: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=f"^{_NAMESPACE_PATTERN}$", extra={"form": "namespace"})
]
Variable: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=f"^{_VARIABLE_PATTERN}$", extra={"form": "variable"})
]
Machine: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=f"^{_MACHINE_PATTERN}$", extra={"form": "machine"})
]
Options: TypeAlias = dict[str, Any] | None
"""`options:` with nothing after it is no options."""
NodeTimeout: TypeAlias = Annotated[
    float, msgspec.Meta(ge=1, extra={"form": "duration"}, extra_json_schema={"format": "duration"})
]
"""More than twice what passes between two beats of a host, see `actors.runtime.hosts`."""
Urls: TypeAlias = Annotated[list[str], msgspec.Meta(min_length=1)]
Entry: TypeAlias = dict[str, Any]
"""Of `children`: one of `ENTRY_FORMS`, told apart by its keys."""
Entries: TypeAlias = Annotated[list[Entry], msgspec.Meta(min_length=1)]


def _matching(pattern: str, expected: str) -> Callable[[object], object]:
    """A form that says what a pattern means; unlike `$`, it allows no line break at the end."""

    def form(value: object) -> object:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise ValueError(expected)
        return value

    return form


FORMS: Forms = MappingProxyType(
    {
        "duration": parse_duration,
        "shutdown": parse_shutdown,
        "bytes": parse_bytes,
        "cpus": parse_cpus,
        "name": _matching(
            _NAME_PATTERN,
            "a name of lower-case letters, digits, - and _, a letter first, 63 at most",
        ),
        "namespace": _matching(
            _NAMESPACE_PATTERN, "a namespace of lower-case letters, digits and -, 63 at most"
        ),
        "machine": _matching(
            _MACHINE_PATTERN, "the name of a node of letters, digits, ., - and _, 63 at most"
        ),
        "variable": _matching(_VARIABLE_PATTERN, "the name of an environment variable"),
    }
)
"""How each type marked with a form is read."""


class EtcdForm(msgspec.Struct, frozen=True, kw_only=True):
    embedded: bool = False
    port: Port | None = None
    node: Machine | None = None
    """Of the embedded server: the node on whose address it serves all nodes. Without it, it listens
    on loopback alone."""
    urls: Urls | None = None
    user: str | None = None
    password: str | None = None
    tls: Tls | None = None


class NatsForm(EtcdForm, frozen=True, kw_only=True):
    token: str | None = None
    credentials: str | None = None


class ActorForm(msgspec.Struct, frozen=True, kw_only=True):
    actor: str
    role: Name | None = None
    """Default: the built-in role. A class of your own needs one."""
    options: Options = None


class LabelForm(msgspec.Struct, frozen=True, kw_only=True):
    # Without the pattern of `Machine`: msgspec 0.22 frees one twice that stands twice in a union.
    label: str | list[str]
    """Every node that has it, or all of several, in the order of `nodes`."""


Where: TypeAlias = str | list[str] | LabelForm | None
"""One of `nodes`, some of them, or those with a label."""


class MachineForm(msgspec.Struct, frozen=True, kw_only=True):
    address: str | None = None
    labels: list[str] = []
    """What entries can ask for, as in `node: {label: gpu}`."""


class NodeForm(Policy, frozen=True, kw_only=True):
    env: Mapping[Variable, str | int | float] = {}
    cwd: str = "."
    node: Where = None
    """Where it runs; the replicas are dealt over several in turn. Default: as the supervisor above
    it in the file, else the first of `nodes`."""


class SingleForm(NodeForm, frozen=True, kw_only=True):
    actor: str
    name: Name | None = None
    """Default: the role."""
    role: Name | None = None
    """Default: the built-in role, else the name."""
    options: Options = None


class GroupForm(NodeForm, frozen=True, kw_only=True):
    name: Name
    actors: Annotated[list[ActorForm], msgspec.Meta(min_length=1)]


class ServersForm(NodeForm, frozen=True, kw_only=True):
    disaggregated_config: str
    """TensorRT-LLM's file for disaggregated serving, relative to the topology: its servers become
    the workers `context`, `generation` and, for those that do both, `aggregated`."""
    name: Name | None = None
    """Put before these names, as in `name-context`, to tell two such entries apart."""
    options: Options = None
    """Of every worker. `options.engine` is completed by what the file says of each section;
    without one it is `kind: tensorrt_llm`."""


class SupervisorForm(Supervision, frozen=True, kw_only=True):
    name: Name
    restart: Restart = Restart.PERMANENT
    significant: bool = False
    node: Where = None
    """For all below that say nothing themselves."""
    children: Entries


class RootForm(msgspec.Struct, frozen=True, kw_only=True):
    namespace: Namespace | None = None
    nodes: Mapping[Machine, str | MachineForm | None] = {}
    """The machines of the topology, each with the address by which the others reach it, or with
    that and labels. See `supervise --node`."""
    certificates: str | None = None
    """Of embedded servers that several nodes use: the directory with `ca.pem`, and `NODE.pem` and
    `NODE.key` of each node; see `supervise certificates`. `off`: no TLS."""
    nats: str | list[str] | NatsForm = "embedded"
    etcd: str | list[str] | EtcdForm = "embedded"
    supervision: Supervision = Supervision()
    orphan_timeout_s: PositiveSeconds = msgspec.field(default=60.0, name="orphan_timeout")
    node_timeout_s: NodeTimeout = msgspec.field(default=1.5, name="node_timeout")
    """After this silence the actors of another of `nodes` are no longer counted on, until it is
    heard again."""
    tracing: TracingSettings | None = None
    """Traces for an OpenTelemetry collector. `{}`: on, all else as the OTEL_* variables say."""
    children: Entries


ENTRY_FORMS: Mapping[str, type[SingleForm | GroupForm | ServersForm | SupervisorForm]] = (
    MappingProxyType(
        {
            "actor": SingleForm,
            "actors": GroupForm,
            "disaggregated_config": ServersForm,
            "children": SupervisorForm,
        }
    )
)
"""By the key that makes an entry what it is."""
