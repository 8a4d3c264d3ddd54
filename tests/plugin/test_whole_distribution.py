"""A new distribution of ``new-driver`` passes its tests and strict types: most of a minute, for ``--whole``."""

import sys

import pytest
from installing import run


@pytest.mark.timeout(240)
def test_a_new_distribution_passes_its_tests_also_in_several_processes(python, distribution):
    assert "20 passed" in run(python, "-m", "pytest", "-q", "-n2", cwd=distribution)


@pytest.mark.timeout(240)
def test_a_new_distribution_passes_strict_types(python, distribution):
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python)
    assert "no issues found in 4 source files" in run(*mypy, "src", "tests", cwd=distribution)
