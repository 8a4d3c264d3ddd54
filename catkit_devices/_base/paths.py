"""The names of operations of components: ``outputs[1].voltage``.

``outputs.1.voltage`` is accepted too, because it needs no quotes in a shell or in TOML. So paths are compared by their
words, which are the same in both forms.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["get_at", "item", "reached", "same_path", "set_at", "words"]

# Compiled when they are used first, not in every child process.
_IN_BRACKETS = r"""\[\s*(?:'([^']*)'|"([^"]*)"|([^\[\]'"]*?))\s*\]"""
_WORD = r"[\w-]+"
"""A word of a path: a name, or the key of a component."""


def words(path: str) -> tuple[str, ...]:
    """Return the words of a path: of ``outputs[1].voltage`` they are ``outputs``, ``1`` and ``voltage``.

    A text that is not a path is returned as one word, which is the name of nothing.
    """
    if path.isidentifier():
        return (path,)
    found = tuple(re.sub(_IN_BRACKETS, lambda key: f".{key[1] or key[2] or key[3] or ''}", path).split("."))
    return found if all(re.fullmatch(_WORD, word) for word in found) else (path,)


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


def get_at(thing: Any, path: str) -> Any:
    """Return the attribute to which a path such as ``outputs[1].voltage`` leads from a device or its proxy."""
    return reached(thing, words(path))


def set_at(thing: Any, path: str, value: Any) -> None:
    """Set the attribute to which a path leads from a device, or its proxy."""
    *before, name = words(path)
    owner = reached(thing, tuple(before))
    set_by_word = getattr(type(owner), "_set_by_word_", None)  # of a property with arguments
    if set_by_word is None:
        setattr(owner, name, value)
    else:
        set_by_word(owner, name, value)


def same_path(path: str, paths: Iterable[str]) -> str | None:
    """Return which of ``paths`` says the same as ``path``, in whatever spelling; None if none does."""
    wanted = words(path)
    return next((one for one in paths if words(one) == wanted), None)
