"""The five drivers that a page shows are short, and need nothing that is not for drivers."""

import re

import pytest
from doc_pages import DOCS, blocks_of

LONGEST = 60
"""Lines, with docstrings and empty lines."""
DRIVERS = {
    block.title.removeprefix("plugins/"): block.text
    for block in blocks_of(DOCS / "how-to" / "whole-drivers.md")
    if block.title.startswith("plugins/")
}


def test_there_are_five():
    assert len(DRIVERS) == 5


@pytest.mark.parametrize("name", DRIVERS)
def test_a_whole_driver_is_at_most_sixty_lines_long(name):
    assert len(DRIVERS[name].splitlines()) <= LONGEST


@pytest.mark.parametrize("name", DRIVERS)
def test_a_whole_driver_works_around_nothing(name):
    around = re.compile(r"noqa|type: ignore|catkit_devices\._|import time|pyvisa|self\.device\._|\._(?!_)\w+_\b")
    assert around.findall(DRIVERS[name]) == []
