"""Whether a spec can be run: everything is checked before the first child is started.

Types are checked too, since specs are built from files and by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from supervisor.tree import errors
from supervisor.tree.spec import (
    AutoShutdown,
    Backoff,
    ChildSpec,
    Restart,
    Spec,
    Strategy,
    SupervisorSpec,
)


def check(spec: object) -> None:
    """Raise the `SpecError` that fits the first fault found in this tree of specs."""
    if not isinstance(spec, SupervisorSpec):
        raise errors.NotASpec(getattr(spec, "id", "?"), spec)
    _check_supervisor(spec)
    _check_ids(spec)


def check_child(spec: object, auto_shutdown: AutoShutdown) -> None:
    """Raise the `SpecError` that fits the first fault of a child, or of a supervisor with all
    below it, that is to live under a supervisor with this `auto_shutdown`."""
    _check_child(getattr(spec, "id", "?"), spec, auto_shutdown)
    if isinstance(spec, SupervisorSpec):
        _check_ids(spec)


def walk(spec: Spec) -> Iterator[Spec]:
    """The spec and every spec below it, parents first. Templates are not among them."""
    yield spec
    if isinstance(spec, SupervisorSpec):
        for child in spec.children:
            yield from walk(child)


def _check_supervisor(spec: SupervisorSpec) -> None:
    _check_id(spec.id)
    if spec.strategy not in set(Strategy):
        raise errors.InvalidStrategy(spec.id, spec.strategy)
    if not _whole(spec.intensity, 0):
        raise errors.InvalidIntensity(spec.id, spec.intensity)
    if not _number(spec.period_s) or spec.period_s == 0:
        raise errors.InvalidPeriod(spec.id, spec.period_s)
    if spec.auto_shutdown not in set(AutoShutdown):
        raise errors.InvalidAutoShutdown(spec.id, spec.auto_shutdown)
    if spec.dynamic:
        _check_dynamic(spec)
        return
    if spec.template is not None or spec.count != 0:
        raise errors.BadCombination(
            spec.id, f"template and count need simple_one_for_one, not {spec.strategy}"
        )
    if not isinstance(spec.children, tuple):
        raise errors.NotASpec(spec.id, spec.children)
    for child in spec.children:
        _check_child(spec.id, child, spec.auto_shutdown)


def _check_child(parent: object, spec: object, auto_shutdown: AutoShutdown) -> None:
    if not isinstance(spec, (ChildSpec, SupervisorSpec)):
        raise errors.NotASpec(parent, spec)
    _check_common(spec, auto_shutdown)
    if isinstance(spec, ChildSpec):
        _check_worker(spec)
    else:
        _check_supervisor(spec)


def _check_dynamic(spec: SupervisorSpec) -> None:
    if spec.children:
        raise errors.BadCombination(spec.id, "simple_one_for_one takes a template, not children")
    if spec.auto_shutdown != AutoShutdown.NEVER:
        raise errors.BadCombination(
            spec.id, f"simple_one_for_one cannot have auto_shutdown {spec.auto_shutdown}"
        )
    if not isinstance(spec.template, ChildSpec):
        raise errors.InvalidTemplate(spec.id, spec.template)
    if not _whole(spec.count, 0):
        raise errors.InvalidCount(spec.id, spec.count)
    _check_common(spec.template, spec.auto_shutdown)
    _check_worker(spec.template)
    if spec.template.aside:
        raise errors.BadCombination(spec.id, "a template cannot stand aside: there is no order")


def _check_common(spec: Spec, auto_shutdown: AutoShutdown) -> None:
    """What a supervisor asks of any child, be it a process or a supervisor."""
    _check_id(spec.id)
    if spec.restart not in set(Restart):
        raise errors.InvalidRestart(spec.id, spec.restart)
    if not isinstance(spec.significant, bool):
        raise errors.InvalidSignificant(spec.id, spec.significant)
    if spec.significant and spec.restart == Restart.PERMANENT:
        raise errors.BadCombination(spec.id, "a permanent child cannot be significant")
    if spec.significant and auto_shutdown == AutoShutdown.NEVER:
        raise errors.BadCombination(
            spec.id, "a child cannot be significant where auto_shutdown is never"
        )
    if spec.shutdown_s is not None and not _number(spec.shutdown_s):
        raise errors.InvalidShutdown(spec.id, spec.shutdown_s)
    if not isinstance(spec.brutal_kill, bool):
        raise errors.InvalidShutdown(spec.id, spec.brutal_kill)
    if spec.max_failures is not None and not _whole(spec.max_failures, 1):
        raise errors.InvalidMaxFailures(spec.id, spec.max_failures)
    _check_backoff(spec.id, spec.backoff)


def _check_worker(spec: ChildSpec) -> None:
    if spec.drain_s is not None and not _number(spec.drain_s):
        raise errors.InvalidDrain(spec.id, spec.drain_s)
    deadline = spec.start_deadline_s
    if deadline is not None and (not _number(deadline) or deadline == 0):
        raise errors.InvalidDeadline(spec.id, deadline)
    if not isinstance(spec.aside, bool):
        raise errors.InvalidAside(spec.id, spec.aside)
    if spec.aside and spec.significant:
        raise errors.BadCombination(spec.id, "a child that stands aside cannot be significant")


def _check_backoff(spec_id: str, backoff: object) -> None:
    if not isinstance(backoff, Backoff):
        raise errors.InvalidBackoff(spec_id, backoff)
    times = (backoff.first_s, backoff.initial_s, backoff.max_s, backoff.reset_after_s)
    if not all(_number(time) for time in (*times, backoff.factor, backoff.jitter)):
        raise errors.InvalidBackoff(spec_id, backoff)
    # 2**64 is where `Backoff.delay` stops counting: a larger factor could overflow there.
    if not 1 <= backoff.factor <= 1000 or backoff.jitter > 1:
        raise errors.InvalidBackoff(spec_id, backoff)


def _check_id(spec_id: object) -> None:
    if not isinstance(spec_id, str) or not spec_id:
        raise errors.InvalidId(spec_id, spec_id)


def _check_ids(root: SupervisorSpec) -> None:
    seen: set[str] = set()
    templates: set[str] = set()
    for spec in walk(root):
        if spec.id in seen:
            raise errors.DuplicateId(spec.id, spec.id)
        seen.add(spec.id)
        if isinstance(spec, SupervisorSpec) and spec.template is not None:
            if spec.template.id in templates:
                raise errors.DuplicateId(spec.template.id, spec.template.id)
            templates.add(spec.template.id)
    for spec_id in seen:
        if template_of(spec_id) in templates:
            raise errors.DuplicateId(spec_id, spec_id)


def template_of(child_id: str) -> str:
    """The id of the template whose instance could have this id; empty when none could."""
    template, _, index = child_id.rpartition("/")
    return template if index.isdecimal() else ""


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: object) -> bool:
    """Whether it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and value >= 0
