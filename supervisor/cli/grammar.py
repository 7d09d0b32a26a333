"""The command line as completion needs it: read from the parser itself, so that no option can be
forgotten."""

from __future__ import annotations

import argparse
from enum import Enum
from typing import NamedTuple

from supervisor.cli.commands import make_parser


class Value(Enum):
    """What stands behind an option, or in the place of a positional argument."""

    NOTHING = "nothing"
    TEXT = "text"
    """Nothing that could be guessed."""
    TOPOLOGY = "topology"
    DIRECTORY = "directory"
    NAMESPACE = "namespace"
    CHILD = "child"
    CHOICE = "choice"


class Flag(NamedTuple):
    """An option in all its spellings."""

    names: tuple[str, ...]
    text: str
    value: Value
    choices: tuple[str, ...] = ()


class Command(NamedTuple):
    """A command and what may follow it."""

    name: str
    text: str
    flags: tuple[Flag, ...]
    positional: Value
    choices: tuple[str, ...] = ()


_BY_METAVAR = {
    "FILE": Value.TOPOLOGY,
    "DIR": Value.DIRECTORY,
    "NAME": Value.CHILD,
}


def grammar() -> tuple[Command, ...]:
    """Every command, as the parser knows it; hidden ones are left out."""
    parser, _ = make_parser()
    [subparsers] = [
        action
        for action in parser._actions  # noqa: SLF001 - argparse has no other way to be read
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001 - same
    ]
    texts = {action.dest: action.help or "" for action in subparsers._choices_actions}  # noqa: SLF001 - same
    return tuple(
        _command(name, texts[name], subparsers.choices[name])
        for name in subparsers.choices
        if name in texts
    )


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    flags: list[Flag] = []
    positional, choices = Value.NOTHING, tuple[str, ...]()
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to be read
        if action.option_strings:
            flags.append(_flag(action))
        elif positional is Value.NOTHING:  # the first; what follows is a number or more of it
            positional, choices = _value(action), _choices(action)
    return Command(name, text, tuple(flags), positional, choices)


def _flag(action: argparse.Action) -> Flag:
    return Flag(
        tuple(action.option_strings),
        (action.help or "").partition(" (")[0],
        _value(action),
        _choices(action),
    )


def _value(action: argparse.Action) -> Value:
    if action.nargs == 0:
        return Value.NOTHING
    if action.choices is not None:
        return Value.CHOICE
    if "--namespace" in action.option_strings:
        return Value.NAMESPACE
    if action.nargs == "?" and action.option_strings:
        return Value.NOTHING  # its value may be left out, and is nothing that could be guessed
    return _BY_METAVAR.get(str(action.metavar), Value.TEXT)


def _choices(action: argparse.Action) -> tuple[str, ...]:
    return tuple(map(str, action.choices or ()))
