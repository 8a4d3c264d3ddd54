"""The names of operations of components: ``outputs[1].voltage``.

``outputs.1.voltage`` is accepted too, because it needs no quotes in a shell or in TOML. So paths are compared by their
words, which are the same in both forms.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["item", "reached", "words"]

_IN_BRACKETS = re.compile(r"""\[\s*(?:'([^']*)'|"([^"]*)"|([^\[\]'"]*?))\s*\]""")
_WORD = re.compile(r"[\w-]+")


def words(path: str) -> tuple[str, ...]:
    """Return the words of a path: of ``outputs[1].voltage`` they are ``outputs``, ``1`` and ``voltage``.

    A text that is not a path is returned as one word, which is the name of nothing.
    """
    if path.isidentifier():
        return (path,)
    found = tuple(_IN_BRACKETS.sub(lambda key: f".{key[1] or key[2] or key[3] or ''}", path).split("."))
    return found if all(map(_WORD.fullmatch, found)) else (path,)


def item(path: str, key: int | str) -> str:
    """Return the path of one of several components: ``outputs[1]``, ``axes['x']``."""
    return f"{path}[{key!r}]"


def reached(thing: Any, path: tuple[str, ...]) -> Any:
    """Return the component or components at a path that begins at a device, a component, or the proxy of one.

    Raises:
        AttributeError, KeyError: there is nothing at this path.
    """
    for word in path:
        by_word = getattr(type(thing), "_by_word_", None)
        thing = getattr(thing, word) if by_word is None else by_word(thing, word)
    return thing
