"""A number in the code says its unit or its reason, and what silences a checker says why."""

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


def numbers_without_a_reason(file):
    """Return the module constants with a number in them that have no text below and no comment beside or above."""
    source = file.read_text(encoding="utf-8")
    lines, body = source.splitlines(), ast.parse(source).body
    for statement, below in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
        names = [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and node.id.isupper()]
        numbers = [
            node
            for node in ast.walk(statement.value)
            if isinstance(node, ast.Constant) and type(node.value) in (int, float)
        ]
        if "__file__" in ast.unparse(statement.value):
            continue  # a path
        first = statement.lineno - 1
        while first > 0 and lines[first - 1].strip():  # a comment above speaks of all up to the next empty line
            first -= 1
        comment = any("#" in line for line in lines[first : statement.end_lineno])
        text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if names and numbers and not (comment or text):
            yield f"{file}:{statement.lineno}: {lines[statement.lineno - 1]}"


def test_every_number_that_has_a_name_has_a_unit_or_a_reason():
    assert [problem for file in FILES for problem in numbers_without_a_reason(file)] == []


def test_a_comment_that_silences_a_checker_says_why():
    silenced = [
        f"{file}:{number}: {line.strip()}"
        for file in FILES
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if (found := SILENCED.search(line)) and not re.search(r"\w{3}", found["reason"])
    ]

    assert silenced == []
