"""TensorRT-LLM's file for disaggregated serving, read as TensorRT-LLM reads it.

`read_disaggregation` gives a `Disaggregation`: the servers the file describes, contexts first, each
with the engine arguments that are its own and the ranks it takes of one MPI world. It decides
nothing about processes: `entries` makes workers of the servers, a launcher gives them ranks.

    hostname: localhost            # where TensorRT-LLM's own orchestrator would listen; unused here
    port: 8000
    backend: pytorch               # any key that is not one of its own is shared by all servers
    context_servers:
      num_instances: 1
      tensor_parallel_size: 1      # the rest of a section are engine arguments
      urls: ["localhost:8001"]     # tell instances apart; nobody listens there
    generation_servers:
      num_instances: 2
      tensor_parallel_size: 2
      urls: ["localhost:8002", "localhost:8003"]

This one has 3 servers and a world of 5 ranks, led by the ranks 0, 1 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import yaml

from supervisor.topology.collector import Collector
from supervisor.topology.document import Document, read_yaml
from supervisor.topology.loading import load
from supervisor.topology.model import MAX_REPLICAS, Port
from supervisor.topology.places import Path as DocumentPath

Section: TypeAlias = Literal["context_servers", "generation_servers"]
SECTIONS: tuple[Section, ...] = ("context_servers", "generation_servers")
Duty: TypeAlias = Literal["context", "generation", "aggregated"]
DUTIES: tuple[Duty, ...] = ("context", "aggregated", "generation")
"""In the order in which their servers stand in the world of ranks, as far as it can be told."""
_DUTIES: Mapping[Section, Duty] = {
    "context_servers": "context",
    "generation_servers": "generation",
}
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size")

Size = Annotated[int, msgspec.Meta(ge=1)]


class RouterForm(msgspec.Struct, frozen=True, kw_only=True):
    """How TensorRT-LLM's orchestrator would choose among the servers of a section."""

    type: str = "round_robin"
    arguments: dict[str, Any] = {}


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """One server: one engine, one worker, `ranks` MPI processes."""

    duty: Duty
    """`aggregated` for one that stands in both sections under one url."""
    number: int
    """Among the servers of its duty, from 0."""
    url: str | None
    """`host:port` as the file says it; its host is where the file's author wants the server."""
    tensor_parallel_size: int
    pipeline_parallel_size: int
    context_parallel_size: int
    arguments: dict[str, Any]
    """For the engine: what the top level shares and the section adds, parallel sizes included,
    `num_instances`, `urls` and `router` not."""
    first_rank: int
    """In a world of all servers; this rank leads the server, the following ones join it."""

    @property
    def ranks(self) -> int:
        """How many MPI processes ("executors") it is made of."""
        return self.tensor_parallel_size * self.pipeline_parallel_size * self.context_parallel_size

    @property
    def host(self) -> str | None:
        """The part of the url before the port."""
        return None if self.url is None else self.url.rpartition(":")[0]


class Disaggregation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    path: Path
    """As given by the caller."""
    hostname: str = "localhost"
    port: int = 8000
    servers: tuple[Server, ...]
    """In the order of their ranks: contexts, then generations."""
    context_router: RouterForm | None = None
    generation_router: RouterForm | None = None
    """None where the section has no `router`."""
    max_local_prefill_tokens: int | None = None
    """`conditional_disagg_config.max_local_prefill_length`: prompts up to this are not worth a
    handoff; None when the file does not say."""

    @property
    def world_size(self) -> int:
        """The sum of all servers' ranks: what `mpirun -n` wants for all of them together."""
        return sum(server.ranks for server in self.servers)

    def of(self, duty: Duty) -> tuple[Server, ...]:
        """The servers of one duty, in order."""
        return tuple(server for server in self.servers if server.duty == duty)


class _Own(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the top level that are not engine arguments, of every version."""

    hostname: str = "localhost"
    port: Port = 8000
    context_servers: dict[str, Any] | None = None
    generation_servers: dict[str, Any] | None = None
    conditional_disagg_config: _Conditional | None = None
    disagg_cluster: dict[str, Any] | None = None
    # What follows concerns TensorRT-LLM's own orchestrator, which does not run here.
    max_retries: Any = None
    perf_metrics_max_requests: Any = None
    otlp_config: Any = None
    return_perf_metrics: Any = None
    perf_metrics_output_dir: Any = None
    node_id: Any = None
    schedule_style: Any = None
    allow_request_chat_template: Any = None
    gen_strip_message_history: Any = None
    gen_tokids_ctxbytes: Any = None
    num_workers: Any = None
    disagg_coordinator_url: Any = None


class _Conditional(msgspec.Struct, frozen=True, kw_only=True):
    max_local_prefill_length: Annotated[int, msgspec.Meta(ge=0)] = 0


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a section that are not passed to the engine as they are."""

    num_instances: Annotated[int, msgspec.Meta(ge=0, le=MAX_REPLICAS)] = 1
    urls: list[str] | None = None
    router: dict[str, Any] | None = None
    tensor_parallel_size: Size = 1
    pipeline_parallel_size: Size = 1
    context_parallel_size: Size = 1


class _Instance(msgspec.Struct):
    duty: Duty
    url: str | None
    head: _Head
    arguments: dict[str, Any]


_OWN_KEYS = frozenset(_Own.__struct_fields__)
_HEAD_KEYS = frozenset(_Head.__struct_fields__)


def read_disaggregation(path: Path) -> Disaggregation:
    """Read a file. Raises TopologyError with every mistake, each at its line."""
    text = load(path, "a file for disaggregated serving")
    return read_disaggregation_text(text, path)


def read_disaggregation_text(text: str, path: Path) -> Disaggregation:
    """Like `read_disaggregation`, for a text at hand; `path` names it in messages."""
    document = _read(text, str(path))
    reader = _Reader(document)
    found = reader.read(path)
    if found is None or reader.collector.problems:
        raise document.error(reader.collector.problems)
    return found


def _read(text: str, source: str) -> Document:
    """The document, its scalars as PyYAML reads them: TensorRT-LLM takes `yes` for a boolean."""
    document = read_yaml(text, source, None)
    return Document(document.source, document.text, yaml.safe_load(text), document.places)


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.collector = Collector(document)

    def read(self, path: Path) -> Disaggregation | None:
        data = self.document.data
        if not isinstance(data, dict):
            self.collector.add((), "expected context_servers and generation_servers; found neither")
            return None
        written = {key: value for key, value in data.items() if key in _OWN_KEYS}
        # Sections are read even when something beside them is wrong, so that all mistakes show.
        own = self.collector.decode(written, _Own, ()) or _Own()
        if own.disagg_cluster is not None:
            text = "expected servers; found disagg_cluster, whose servers register themselves"
            self.collector.add(("disagg_cluster",), f"{text}: here etcd does that", at_key=True)
        shared = {key: value for key, value in data.items() if key not in _OWN_KEYS}
        instances = [one for name in SECTIONS for one in self._section(name, data, shared)]
        servers = self._servers(instances)
        if not servers and not self.collector.problems:
            self.collector.add((), "expected a server in context_servers or generation_servers")
        conditional = own.conditional_disagg_config
        return Disaggregation(
            path=path,
            hostname=own.hostname,
            port=own.port,
            servers=servers,
            context_router=_router(own.context_servers),
            generation_router=_router(own.generation_servers),
            max_local_prefill_tokens=(
                None if conditional is None else conditional.max_local_prefill_length
            ),
        )

    def _section(
        self, name: Section, data: dict[str, Any], shared: dict[str, Any]
    ) -> list[_Instance]:
        section = data.get(name)
        if not isinstance(section, dict):
            return []
        for key, value in shared.items():
            if key in section and section[key] != value:
                text = f"Parameter {key} is specified both in the top-level and in the {name}"
                self.collector.add((name, key), f"{text} section, but with different values")
        merged = shared | section
        written = {key: value for key, value in merged.items() if key in _HEAD_KEYS}
        head = self.collector.decode(written, _Head, (name,))
        if head is None:
            return []
        urls: list[str | None] = [None] * head.num_instances
        if head.urls is not None:
            if len(head.urls) != head.num_instances:
                text = f"expected as many urls as num_instances, {head.num_instances}"
                self.collector.add((name, "urls"), f"{text}; found {len(head.urls)}")
                return []
            urls = list(head.urls)
            self._check_urls(head.urls, (name, "urls"))
        kept = _HEAD_KEYS.difference(_PARALLEL)
        arguments = {key: value for key, value in merged.items() if key not in kept}
        return [_Instance(_DUTIES[name], url, head, arguments) for url in urls]

    def _check_urls(self, urls: list[str], path: DocumentPath) -> None:
        for index, url in enumerate(urls):
            host, colon, port = url.partition(":")
            if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
                self.collector.add((*path, index), f"expected host:port; found '{url}'")
            elif url in urls[:index]:
                self.collector.add(
                    (*path, index), f"expected a url of its own; found '{url}' again"
                )

    def _servers(self, instances: list[_Instance]) -> tuple[Server, ...]:
        servers: list[Server] = []
        counts: dict[Duty, int] = dict.fromkeys(DUTIES, 0)
        first_rank = 0
        generations = {i.url: i for i in instances if i.duty == "generation" and i.url is not None}
        for instance in instances:
            duty, twin = instance.duty, generations.get(instance.url or "")
            if duty == "context" and twin is not None:
                if twin.arguments != instance.arguments:
                    text = f"expected equal arguments for {instance.url}, which is in both sections"
                    self.collector.add(("generation_servers",), text, at_key=True)
                duty = "aggregated"
                twin.duty = "aggregated"
            elif instance.duty == "aggregated":
                continue  # it has been counted as a context
            server = Server(
                duty=duty,
                number=counts[duty],
                url=instance.url,
                tensor_parallel_size=instance.head.tensor_parallel_size,
                pipeline_parallel_size=instance.head.pipeline_parallel_size,
                context_parallel_size=instance.head.context_parallel_size,
                arguments=instance.arguments,
                first_rank=first_rank,
            )
            counts[duty] += 1
            first_rank += server.ranks
            servers.append(server)
        return tuple(servers)


def _router(section: dict[str, Any] | None) -> RouterForm | None:
    written = (section or {}).get("router")
    if not isinstance(written, dict):
        return None
    arguments = {key: value for key, value in written.items() if key != "type"}
    return RouterForm(type=str(written.get("type", "round_robin")), arguments=arguments)
