"""What can be wrong with a spec, one class a cause.

SpecError
├── NotASpec
├── InvalidId
├── DuplicateId
├── InvalidStrategy
├── InvalidIntensity
├── InvalidPeriod
├── InvalidAutoShutdown
├── InvalidRestart
├── InvalidSignificant
├── InvalidShutdown
├── InvalidDrain
├── InvalidDeadline
├── InvalidAside
├── InvalidBackoff
├── InvalidMaxFailures
├── InvalidCount
├── InvalidTemplate
└── BadCombination         each value is legal, but not together
"""

from __future__ import annotations


class SpecError(ValueError):
    """Base: this spec cannot be run. `id` names the child or supervisor at fault."""

    expected = "a valid spec"

    def __init__(self, spec_id: object, value: object) -> None:
        super().__init__(f"{spec_id}: expected {self.expected}, not {value!r}")
        self.id = spec_id
        self.value = value


class NotASpec(SpecError):
    """Something else stands where a child or a supervisor should."""

    expected = "a ChildSpec or a SupervisorSpec"


class InvalidId(SpecError):
    """The id is no text, or empty."""

    expected = "an id that is a text and not empty"


class DuplicateId(SpecError):
    """The id occurs twice in the tree, or could be that of a template's instance."""

    expected = "an id that occurs once in the tree"


class InvalidStrategy(SpecError):
    """Not one of `Strategy`."""

    expected = "a strategy"


class InvalidIntensity(SpecError):
    """Not a whole number of at least 0; infinity is not allowed."""

    expected = "an intensity of 0 or more"


class InvalidPeriod(SpecError):
    """Not a finite number of seconds above 0."""

    expected = "a period_s above 0 and finite"


class InvalidAutoShutdown(SpecError):
    """Not one of `AutoShutdown`."""

    expected = "an auto_shutdown mode"


class InvalidRestart(SpecError):
    """Not one of `Restart`."""

    expected = "a restart type"


class InvalidSignificant(SpecError):
    """Neither true nor false."""

    expected = "significant to be true or false"


class InvalidShutdown(SpecError):
    """`shutdown_s` is neither None nor a finite number of at least 0, or `brutal_kill` no truth
    value."""

    expected = "a shutdown_s of 0 or more, or None, and brutal_kill to be true or false"


class InvalidDrain(SpecError):
    """Neither None nor a finite number of at least 0."""

    expected = "a drain_s of 0 or more, or None"


class InvalidDeadline(SpecError):
    """Neither None nor a finite number above 0."""

    expected = "a start_deadline_s above 0, or None"


class InvalidAside(SpecError):
    """Neither true nor false."""

    expected = "aside to be true or false"


class InvalidBackoff(SpecError):
    """A negative or infinite time, a factor below 1, or a jitter outside 0 to 1."""

    expected = "finite times of 0 or more, a factor of at least 1, a jitter within 0 and 1"


class InvalidMaxFailures(SpecError):
    """Neither None nor a whole number of at least 1."""

    expected = "a max_failures of 1 or more, or None"


class InvalidCount(SpecError):
    """Not a whole number of at least 0."""

    expected = "a count of 0 or more"


class InvalidTemplate(SpecError):
    """Not a ChildSpec."""

    expected = "a template that is a ChildSpec"


class BadCombination(SpecError):
    """Each value is legal by itself, but not with the others."""

    def __init__(self, spec_id: object, what: str) -> None:
        ValueError.__init__(self, f"{spec_id}: {what}")
        self.id = spec_id
        self.value = what
