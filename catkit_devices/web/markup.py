"""HTML made of Python values, where every text is escaped unless it was made here."""

from __future__ import annotations

from html import escape
from typing import Any

__all__ = ["Markup", "tag"]

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
"""Elements without an end."""


class Markup(str):
    """HTML that is not escaped once more."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Return an element.

    Args:
        name: of the element.
        *children: elements; other values are escaped, None is left out, lists are taken apart.
        **attributes: ``class_`` stands for ``class``, ``_`` for ``-``; None and False are left out.
    """
    shown = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{shown}>")
    return Markup(f"<{name}{shown}>{_inner(children)}</{name}>")


def _inner(children: Any) -> str:
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(_inner(child))
        else:
            parts.append(escape(str(child)))
    return "".join(parts)
