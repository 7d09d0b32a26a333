"""The files of a model that concern text, in the layout of Hugging Face repositories."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.text.chat_template import DEFAULT

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS_MAP = "special_tokens_map.json"
GENERATION_CONFIG = "generation_config.json"
CONFIG = "config.json"
CHAT_TEMPLATE = "chat_template.jinja"
MORE_CHAT_TEMPLATES = "additional_chat_templates"

_WANTED = (
    TOKENIZER,
    TOKENIZER_CONFIG,
    SPECIAL_TOKENS_MAP,
    GENERATION_CONFIG,
    CONFIG,
    CHAT_TEMPLATE,
    f"{MORE_CHAT_TEMPLATES}/*.jinja",
)


class TokenizerNotFound(Exception):
    """No usable tokenizer at the place named; the text says what is missing there."""

    def __init__(self, source: str, missing: str) -> None:
        super().__init__(f"no tokenizer at {source!r}: {missing}")


@dataclass(frozen=True)
class ModelFiles:
    """What was read; a file that is absent counts as empty."""

    directory: Path
    tokenizer_config: Mapping[str, Any]
    special_tokens_map: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    config: Mapping[str, Any]
    chat_templates: Mapping[str, str]

    @property
    def tokenizer(self) -> Path:
        return self.directory / TOKENIZER

    def special_tokens(self) -> dict[str, str]:
        """Name (`bos_token`, `eos_token`, ...) to token, as chat templates see them."""
        declared = {**self.special_tokens_map, **self.tokenizer_config}
        return {
            name: token
            for name, value in declared.items()
            if name.endswith("_token") and (token := _token_text(value)) is not None
        }

    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens that generation_config.json names, or else config.json."""
        for config in (self.generation_config, self.config, self.config.get("text_config") or {}):
            match config.get("eos_token_id"):
                case int(token):
                    return (token,)
                case [*tokens] if tokens:
                    return tuple(int(token) for token in tokens)
        return ()


def read_model_files(
    source: str | os.PathLike[str], *, revision: str | None = None, offline: bool = False
) -> ModelFiles:
    """Read a local directory, or fetch a repository (`owner/name`) from the Hugging Face Hub.

    `offline` looks only at what was fetched earlier. Raises TokenizerNotFound.
    """
    directory = Path(source)
    if not directory.is_dir():
        directory = _fetch(os.fspath(source), revision, offline=offline)
    if not (directory / TOKENIZER).is_file():
        raise TokenizerNotFound(os.fspath(source), f"{TOKENIZER} is missing")
    tokenizer_config = _read_object(directory / TOKENIZER_CONFIG)
    return ModelFiles(
        directory=directory,
        tokenizer_config=tokenizer_config,
        special_tokens_map=_read_object(directory / SPECIAL_TOKENS_MAP),
        generation_config=_read_object(directory / GENERATION_CONFIG),
        config=_read_object(directory / CONFIG),
        chat_templates=_chat_templates(directory, tokenizer_config),
    )


def _fetch(source: str, revision: str | None, *, offline: bool) -> Path:
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise TokenizerNotFound(source, "no such directory")
    # Imported late: it brings an HTTP client, which local models never need.
    import huggingface_hub  # noqa: PLC0415

    try:
        return Path(
            huggingface_hub.snapshot_download(
                source,
                revision=revision,
                allow_patterns=list(_WANTED),
                local_files_only=offline,
            )
        )
    except Exception as error:
        # Which errors its HTTP library raises differs between versions of the client.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise TokenizerNotFound(
            source, f"no such directory, and the Hub did not give it: {reason}"
        ) from error


def _chat_templates(directory: Path, tokenizer_config: Mapping[str, Any]) -> dict[str, str]:
    """Template files go before what tokenizer_config.json says, as in transformers."""
    files = {path.stem: path for path in (directory / MORE_CHAT_TEMPLATES).glob("*.jinja")}
    if (directory / CHAT_TEMPLATE).is_file():
        files[DEFAULT] = directory / CHAT_TEMPLATE
    if files:
        return {name: path.read_text(encoding="utf-8") for name, path in files.items()}
    match tokenizer_config.get("chat_template"):
        case str(template):
            return {DEFAULT: template}
        case [*named]:
            return {entry["name"]: entry["template"] for entry in named}
        case _:
            return {}


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerNotFound(str(path.parent), f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise TokenizerNotFound(str(path.parent), f"{path.name} is not a JSON object")
    return content


def _token_text(value: object) -> str | None:
    """A special token is declared by its text, or by an object that has it as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
