"""The roles a topology can name by one word. Strings only: the supervisor imports none of them."""

from __future__ import annotations

import re
from types import MappingProxyType

from actors.runtime.options import nearest, show

BUILT_IN = MappingProxyType(
    {
        "ingress": "actors.ingress.actor:Ingress",
        "preprocessor": "actors.preprocessor.actor:Preprocessor",
        "router": "actors.router.actor:Router",
        "context": "actors.worker.actor:ContextWorker",
        "generation": "actors.worker.actor:GenerationWorker",
        "aggregated": "actors.worker.actor:AggregatedWorker",
    }
)
CLASS_PATH_PATTERN = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"


class UnknownActorError(ValueError):
    """A word that is neither a built-in role nor the path of a class."""

    def __init__(self, word: str) -> None:
        listed = ", ".join(BUILT_IN)
        super().__init__(
            f"expected a built-in role ({listed}) or package.module:Class; found {show(word)}"
        )
        self.suggestion = nearest(word, BUILT_IN)


def resolve_actor(word: str) -> tuple[str, str | None]:
    """The class path that `actor: word` means, and the built-in role it plays, if any.

    Raises UnknownActorError. Whether the class exists is for `options_check` to find out.
    """
    if word in BUILT_IN:
        return BUILT_IN[word], word
    if re.fullmatch(CLASS_PATH_PATTERN, word) is None:
        raise UnknownActorError(word)
    return word, next((role for role, path in BUILT_IN.items() if path == word), None)
