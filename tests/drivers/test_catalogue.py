"""What every bundled driver has: conformance tests, something that replaces its instrument, and a named source."""

import ast
import importlib
import io
import re
import tokenize
from pathlib import Path

import pytest

from catkit_devices.drivers import Plugins
from catkit_devices.scpi_tables import TableScpiDevice
from catkit_devices.stand_ins import takes_visa

PLUGINS = Plugins()
MODULES = sorted({driver.__module__ for driver in PLUGINS.drivers.values()} - {TableScpiDevice.__module__})
SOURCE = re.compile(r"[Mm]anual|Guide|Reference|Protocol|RFC \d+|\.h of|github \w+|PyPI \w+")
OF_NO_INSTRUMENT = {"scpi", "scpi_camera"}
"""Of a table in the configuration, and of the simulated bench."""
LONGEST = 120
"""Lines of code of one driver's file."""
BESIDE_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of_code(source):
    """Return the numbers of the lines that are neither empty nor comments nor texts of documentation."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in BESIDE_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def test_every_bundled_driver_has_conformance_tests():
    files = Path(__file__).parent.glob("test_*.py")
    texts = [file.read_text(encoding="utf-8") for file in files]
    tested = {name for text in texts for name in re.findall(r'^    driver = "(\w+)"$', text, re.MULTILINE)}
    assert set(PLUGINS.drivers) <= tested


@pytest.mark.parametrize("name", sorted(PLUGINS.drivers))
def test_every_bundled_driver_has_a_simulator_or_a_stand_in(name):
    if takes_visa(PLUGINS.driver(name)):
        assert name in PLUGINS.simulators
    else:
        assert importlib.import_module(f"catkit_devices.sim.{name}").__all__


@pytest.mark.parametrize("name", sorted(set(PLUGINS.drivers) - OF_NO_INSTRUMENT))
def test_every_bundled_driver_names_the_source_of_its_commands(name):
    assert SOURCE.search(importlib.import_module(PLUGINS.driver(name).__module__).__doc__)


@pytest.mark.parametrize("module", MODULES)
def test_a_bundled_driver_is_short(module):
    source = Path(importlib.import_module(module).__file__).read_text(encoding="utf-8")
    assert len(lines_of_code(source)) <= LONGEST
