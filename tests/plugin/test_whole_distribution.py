"""New drivers and distributions of ``new-driver`` pass all of their tests and strict types, for ``--whole``."""

import sys

import pytest
from installing import run
from test_installed import KINDS

from catkit_devices.cli.new_driver import new_driver

SHAPES = ("scpi", "sdk", "configuration")
"""Kinds whose distributions have other files than each other; the others have those of scpi."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("distribution", SHAPES, indirect=True)
def test_a_new_distribution_passes_its_tests_also_in_several_processes(python, distribution):
    assert " passed" in run(python, "-m", "pytest", "-q", "-n2", cwd=distribution)


@pytest.mark.timeout(240)
def test_a_new_distribution_passes_strict_types(python, distribution):
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python)
    assert "no issues found in 4 source files" in run(*mypy, "src", "tests", cwd=distribution)


@pytest.mark.timeout(240)
def test_new_plugin_files_of_every_kind_pass_strict_types_and_work_from_two_processes(python, tmp_path):
    project = tmp_path / "project"
    for kind in KINDS:
        new_driver(f"acme_{kind}", kind, to=project)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python)
    assert "no issues found in 13 source files" in run(*mypy, ".", cwd=project)
    passed = run(python, "-m", "pytest", "-q", "-n2", "-k", "from_two_processes", cwd=project)
    assert "5 passed" in passed
