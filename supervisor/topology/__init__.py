"""Reads the one file that says which actors make up a service.

`read` gives a `Reading`, whose `topology` is what the supervisor runs; `check_options` asks, in a
process of its own, whether the actors take the options they are given; `render` shows a
`TopologyError` with the lines it is about; `schema` describes the file to an editor.
"""

from supervisor.topology.errors import Problem, TopologyError, render
from supervisor.topology.machines import Here, NodeError, choose_node
from supervisor.topology.model import (
    Actor,
    ActorInstance,
    AutoShutdown,
    Backoff,
    Child,
    Node,
    NodeInstance,
    Restart,
    Service,
    Strategy,
    Supervision,
    Supervisor,
    Tls,
    Topology,
    Watchdog,
)
from supervisor.topology.options_check import OptionsProcessError, check_options
from supervisor.topology.overrides import Overrides
from supervisor.topology.reader import Reading, read, read_text
from supervisor.topology.schema import schema

__all__ = (
    "Actor",
    "ActorInstance",
    "AutoShutdown",
    "Backoff",
    "Child",
    "Here",
    "Node",
    "NodeError",
    "NodeInstance",
    "OptionsProcessError",
    "Overrides",
    "Problem",
    "Reading",
    "Restart",
    "Service",
    "Strategy",
    "Supervision",
    "Supervisor",
    "Tls",
    "Topology",
    "TopologyError",
    "Watchdog",
    "check_options",
    "choose_node",
    "read",
    "read_text",
    "render",
    "schema",
)
