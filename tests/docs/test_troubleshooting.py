"""The pages for operators quote the program as it is: messages, states and exit codes."""

import ast
import re
from typing import get_args

import pytest
from doc_pages import DOCS, ROOT

from catkit_devices._device.connection import State as DeviceState
from catkit_devices.cli import output
from catkit_devices.testbed.experiments.progress import State
from catkit_devices.testbed.status import NOT_KNOWN

VARIABLE = "\0"
"""Stands for a value in the text of an f-string."""
SHORTEST = 3
"""Characters of a piece of a message; shorter ones are units and punctuation between two values."""


def texts_of_the_program():
    """Every text in the source, with ``VARIABLE`` where an f-string has a value."""
    texts = set()
    for file in (ROOT / "catkit_devices").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else VARIABLE for part in node.values]
                texts.add("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return "\n".join(texts)


def quoted_messages():
    for line in (DOCS / "troubleshooting.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", line.split(" | ")[0])


@pytest.fixture(scope="module")
def program():
    return texts_of_the_program()


@pytest.mark.parametrize("message", list(quoted_messages()))
def test_every_message_on_the_page_is_one_of_the_program(message, program):
    pieces = [piece for piece in re.split(r"\s*(?:\.\.\.|[:;])\s*", message) if len(piece) >= SHORTEST]
    assert pieces
    assert [piece for piece in pieces if not is_made_by(program, piece)] == []


def is_made_by(program, piece):
    """Return whether the program has a piece of a message as one text, or as two that it puts together."""
    spaces = [0, *(found.start() for found in re.finditer(" ", piece))]
    return any(piece[:space].strip() in program and piece[space:].strip() in program for space in spaces)


def table(page, heading):
    """Return the first cell of each row of the table under a heading."""
    section = (DOCS / page).read_text(encoding="utf-8").partition(f"# {heading}\n")[2].partition("\n#")[0]
    return [row.split("|")[1].strip().strip("`") for row in section.splitlines() if row.startswith("|")][2:]


def test_the_guide_lists_every_state_of_a_device():
    *known, not_known = table("operators-guide.md", "States of a device")
    assert set(known) == set(DeviceState)
    assert not_known.startswith(NOT_KNOWN)


def test_the_guide_lists_every_state_of_an_experiment():
    assert set(table("operators-guide.md", "States of an experiment")) == set(get_args(State))


def test_the_guide_lists_every_exit_code():
    codes = {output.FAILED, output.USAGE, output.NOT_RUNNING, output.TRIPPED, output.BUSY, output.SILENT}
    assert set(map(int, table("operators-guide.md", "Exit codes"))) == {0, *codes, 130}
