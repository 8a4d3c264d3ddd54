"""Docstrings as Markdown: they are written so that ``help()`` reads well, and the site shows the same text."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

__all__ = ["Docstrings", "to_markdown"]

_ROLE = re.compile(r":[a-z]+:`~?([^`]*\.)?([^`.]+)`")
_QUOTED = re.compile(r"(?<!`)``(?!`)")
_LITERAL = re.compile(r"^(?P<indent> *)(?P<text>.*?)::\n(?P<code>\n(?:(?P=indent)    .*\n|\n)+)", re.MULTILINE)


def to_markdown(text: str) -> str:
    """Return a docstring with its roles as code, and its literal blocks as fenced ones."""

    def fenced(found: re.Match[str]) -> str:
        indent, said = found["indent"], found["text"]
        code = textwrap.indent(textwrap.dedent(found["code"]).strip("\n"), indent)
        lead = f"{indent}{said}:\n\n" if said else ""
        return f"{lead}{indent}```python\n{code}\n{indent}```\n\n"

    text = _LITERAL.sub(fenced, text + "\n").rstrip("\n")
    return _QUOTED.sub("`", _ROLE.sub(lambda found: f"`{found[2]}`", text))


class Docstrings(griffe.Extension):
    """Hands every docstring to the site as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that was loaded."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
