"""A constant says its unit or its reason, and what silences a checker says why."""

import ast
import re
from pathlib import Path

import catkit_devices
import catkit_devices.plugins
import catkit_devices.sim

FILES = sorted(
    file
    for package in (catkit_devices, catkit_devices.plugins, catkit_devices.sim)
    for file in Path(package.__path__[0]).rglob("*.py")
)
SILENCED = re.compile(r"#\s*(?:type: ignore\[[^]]+\]|noqa: [A-Z0-9, ]*[0-9])(?P<reason>.*)$")


def constants_without_a_reason(file):
    """Return the module constants that have no text below and no comment beside or above.

    A type variable needs none, nor have the examples of a command.
    """
    source = file.read_text(encoding="utf-8")
    lines, body = source.splitlines(), ast.parse(source).body
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and node.id.isupper()]
        if names == ["EXAMPLES"] or "TypeVar(" in ast.unparse(statement.value):
            continue
        first = statement.lineno - 1
        while first > 0 and lines[first - 1].strip():  # a comment above speaks of all up to the next empty line
            first -= 1
        beside = any("#" in line for line in lines[statement.lineno - 1 : statement.end_lineno])
        above = any(line.startswith("#") for line in lines[first : statement.lineno - 1])
        text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if names and not (beside or above or text):
            yield f"{file}:{statement.lineno}: {lines[statement.lineno - 1]}"


def test_every_constant_has_a_unit_or_a_reason():
    assert [problem for file in FILES for problem in constants_without_a_reason(file)] == []


def test_a_comment_that_silences_a_checker_says_why():
    silenced = [
        f"{file}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (found := SILENCED.search(line)) and not re.search(r"\w{3}", found["reason"])
    ]

    assert silenced == []
