"""`supervise completion bash|zsh|fish`: the grammar of the command line as a script for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from supervisor.cli.arguments import Options
from supervisor.cli.commands import NAMES_COMMAND
from supervisor.cli.grammar import Command, Flag, Value, grammar


def completion(options: Options, _environ: Mapping[str, str]) -> int:
    """Print the script for a shell."""
    assert options.shell is not None, "the parser requires it"
    print(script(options.shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for `bash`, `zsh` or `fish`."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](grammar())


# -- bash ----------------------------------------------------------------------------------------


def _bash(commands: tuple[Command, ...]) -> str:
    names = " ".join(command.name for command in commands)
    with_value = sorted({name for flag in _flags(commands, valued=True) for name in flag.names})
    options = "\n".join(
        f"    {command.name}) flags={_quoted(_spellings(command))} "
        f"wanted={_bash_wanted(command.positional, command.choices)} ;;"
        for command in commands
    )
    values = "\n".join(
        f"    {'|'.join(flag.names)}) wanted={_bash_wanted(flag.value, flag.choices)} ;;"
        for flag in _flags(commands, valued=True)
    )
    return f"""\
# bash completion for supervise.
#   source <(supervise completion bash)
_supervise() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
  local command= namespace= flags= wanted= i
  local commands={_quoted(names)}
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]}} in
      {"|".join(with_value)})
        [[ ${{COMP_WORDS[i]}} == --namespace ]] && namespace=${{COMP_WORDS[i+1]}}
        ((i++)) ;;
      -*) ;;
      *) [[ -z $command ]] && command=${{COMP_WORDS[i]}} ;;
    esac
  done
  case $command in
{options}
    '') flags={_quoted(_spellings(_named(commands, "up")) + " --version")} wanted=start ;;
    *) flags={_quoted(_spellings(_named(commands, "up")))} wanted= ;;
  esac
  case $before in
{values}
    *) [[ $word == -* ]] && wanted=flags ;;
  esac
  COMPREPLY=()
  case $wanted in
    flags) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word") ;;
    choice:*) mapfile -t COMPREPLY < <(compgen -W "${{wanted#choice:}}" -- "$word") ;;
    start)
      mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word"; _supervise_files "$word") ;;
    topology) mapfile -t COMPREPLY < <(_supervise_files "$word") ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    namespace) mapfile -t COMPREPLY < <(compgen -W "$(_supervise_names namespaces)" -- "$word") ;;
    child)
      local of=(${{namespace:+--namespace "$namespace"}})
      mapfile -t COMPREPLY < <(
        compgen -W "$(_supervise_names children "${{of[@]}}")" -- "$word"
      ) ;;
  esac
  [[ ${{#COMPREPLY[@]}} -eq 1 && -d ${{COMPREPLY[0]}} ]] && compopt -o nospace
}}
_supervise_names() {{ supervise {NAMES_COMMAND} "$@" 2>/dev/null; }}
_supervise_files() {{
  compgen -f -X '!*.yaml' -- "$1"
  compgen -f -X '!*.yml' -- "$1"
  compgen -d -S / -- "$1"
}}
complete -o filenames -F _supervise supervise
"""


def _bash_wanted(value: Value, choices: tuple[str, ...]) -> str:
    if value is Value.CHOICE:
        return _quoted(f"choice:{' '.join(choices)}")
    return "''" if value in {Value.NOTHING, Value.TEXT} else value.value


# -- zsh -----------------------------------------------------------------------------------------


def _zsh(commands: tuple[Command, ...]) -> str:
    described = "\n".join(
        f"    {_quoted(f'{command.name}:{command.text}')}" for command in commands
    )
    cases = "\n".join(
        "    {name}) _arguments -S {arguments} ;;".format(
            name=command.name, arguments=" ".join(_zsh_arguments(command))
        )
        for command in commands
    )
    up = " ".join(_zsh_arguments(_named(commands, "up")))
    return f"""\
#compdef supervise
# zsh completion for supervise.
#   supervise completion zsh > ~/.zfunc/_supervise      (a directory of $fpath), or
#   source <(supervise completion zsh)
_supervise() {{
  local -a commands=(
{described}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe -t commands command commands
    _files -g '*.(yaml|yml)(-.)'
    return
  fi
  local command=$words[2]
  (( ${{commands[(I)$command:*]}} )) && {{ shift words; (( CURRENT-- )) }}
  case $command in
{cases}
    *) _arguments -S {up} ;;
  esac
}}
_supervise_namespaces() {{
  local -a names=(${{(f)"$(supervise {NAMES_COMMAND} namespaces 2>/dev/null)"}})
  compadd -a names
}}
_supervise_children() {{
  local -a of=()
  local at=${{words[(I)--namespace]}}
  (( at )) && of=(--namespace $words[at+1])
  local -a names=(${{(f)"$(supervise {NAMES_COMMAND} children $of 2>/dev/null)"}})
  compadd -a names
}}
if [[ $funcstack[1] == _supervise ]]; then _supervise "$@"; else compdef _supervise supervise; fi
"""


def _zsh_arguments(command: Command) -> list[str]:
    arguments = []
    for flag in command.flags:
        text = flag.text.replace("[", "(").replace("]", ")").replace(":", ",")
        action = _zsh_action(flag.value, flag.choices)
        suffix = f":{flag.value.value}:{action}" if flag.value is not Value.NOTHING else ""
        repeatable = "*" if "--set" in flag.names else ""
        arguments += [_quoted(f"{repeatable}{name}[{text}]{suffix}") for name in flag.names]
    if command.positional is not Value.NOTHING:
        action = _zsh_action(command.positional, command.choices)
        arguments.append(_quoted(f"1:{command.positional.value}:{action}"))
    return arguments


def _zsh_action(value: Value, choices: tuple[str, ...]) -> str:
    return {
        Value.CHOICE: f"({' '.join(choices)})",
        Value.TOPOLOGY: '_files -g "*.(yaml|yml)(-.)"',
        Value.DIRECTORY: "_files -/",
        Value.NAMESPACE: "_supervise_namespaces",
        Value.CHILD: "_supervise_children",
    }.get(value, "")


# -- fish ----------------------------------------------------------------------------------------


def _fish(commands: tuple[Command, ...]) -> str:
    lines = [
        "# fish completion for supervise.",
        "#   supervise completion fish > ~/.config/fish/completions/supervise.fish",
        "function __supervise_namespaces",
        f"  supervise {NAMES_COMMAND} namespaces 2>/dev/null",
        "end",
        "function __supervise_children",
        "  set -l words (commandline -opc)",
        "  set -l at (contains -i -- --namespace $words)",
        '  and set -l of --namespace $words[(math "$at + 1")]',
        f"  supervise {NAMES_COMMAND} children $of 2>/dev/null",
        "end",
        "complete -c supervise -f",
    ]
    none = "-n __fish_use_subcommand"
    topologies = "-a '(__fish_complete_suffix .yaml; __fish_complete_suffix .yml)'"
    lines.append(f"complete -c supervise {none} {topologies}")
    for command in commands:
        lines.append(
            f"complete -c supervise {none} -a {command.name} -d {_fish_quoted(command.text)}"
        )
        when = f"-n '__fish_seen_subcommand_from {command.name}'"
        for flag in command.flags:
            spelled = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                for name in flag.names
            )
            value = _fish_value(flag.value, flag.choices)
            parts = f"complete -c supervise {when} {spelled} {value} -d {_fish_quoted(flag.text)}"
            lines.append(" ".join(parts.split()) if not value else parts)
        if command.positional is Value.TOPOLOGY:
            lines.append(f"complete -c supervise {when} {topologies}")
        elif command.positional is not Value.NOTHING:
            action = _fish_action(command.positional, command.choices)
            lines.append(f"complete -c supervise {when} -a {_quoted(action)}")
    return "\n".join(lines) + "\n"


def _fish_value(value: Value, choices: tuple[str, ...]) -> str:
    if value is Value.NOTHING:
        return ""
    if value is Value.TEXT:
        return "-x"
    return f"-x -a {_quoted(_fish_action(value, choices))}"


def _fish_action(value: Value, choices: tuple[str, ...]) -> str:
    return {
        Value.CHOICE: " ".join(choices),
        Value.TOPOLOGY: "(__fish_complete_suffix .yaml; __fish_complete_suffix .yml)",
        Value.DIRECTORY: "(__fish_complete_directories)",
        Value.NAMESPACE: "(__supervise_namespaces)",
        Value.CHILD: "(__supervise_children)",
    }.get(value, "")


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# -- of all --------------------------------------------------------------------------------------


def _flags(commands: tuple[Command, ...], *, valued: bool) -> list[Flag]:
    """Each once, by its spellings."""
    found = {flag.names: flag for command in commands for flag in command.flags}
    return [flag for flag in found.values() if (flag.value is not Value.NOTHING) == valued]


def _spellings(command: Command) -> str:
    return " ".join(name for flag in command.flags for name in flag.names)


def _named(commands: tuple[Command, ...], name: str) -> Command:
    return next(command for command in commands if command.name == name)


def _quoted(text: str) -> str:
    return shlex.quote(text)
