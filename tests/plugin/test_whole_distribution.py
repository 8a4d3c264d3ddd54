"""What ``new-driver`` writes works where only the wheel is installed: all its tests, lint and strict types."""

import os
import sys

import pytest
from installing import ROOT, run
from test_new_driver import KINDS

from catkit_devices.cli.new_driver import new_driver

SHAPES = ("scpi", "sdk", "configuration")
"""Kinds whose distributions have other files than each other; the others have those of scpi."""
LINT = ("ANN", "B", "D", "E", "F", "I", "N", "PT", "RUF", "SIM", "UP", "W")


@pytest.mark.timeout(240)
def test_new_plugin_files_of_every_kind_pass_their_tests_and_lint(python, tmp_path):
    project = tmp_path / "project"
    for kind in KINDS:
        new_driver(f"acme_{kind}", kind, to=project)

    passed = run(python, "-m", "pytest", "-q", "-n2", "-W", "error", cwd=project)

    assert "106 passed" in passed
    ruff = (sys.executable, "-m", "ruff")
    settings = ("--isolated", "--config", "line-length=120", "--no-cache")
    google = ("--config", 'lint.pydocstyle.convention="google"')
    run(*ruff, "check", *settings, *google, f"--select={','.join(LINT)}", "--ignore=ANN401,D105,D107", ".", cwd=project)
    run(*ruff, "format", *settings, "--check", ".", cwd=project)


@pytest.mark.timeout(240)
def test_an_author_needs_only_what_the_page_says_to_install(python, tmp_path, runtime):
    here = tmp_path / "empty"
    here.mkdir()
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    program, page = ROOT / "tests" / "docs" / "run_page.py", ROOT / "docs" / "how-to" / "begin-a-driver.md"

    told = run(python, program, page, cwd=here, PATH=path, COLUMNS="100", PYTHONPATH=program.parent)

    assert "testbed 'acme_cam' has ended" in told
    assert run(python, "-c", "import numpy, hypothesis", cwd=here) == ""
    with pytest.raises(AssertionError, match="No module named 'pymeasure'"):
        run(python, "-c", "import pymeasure", cwd=here)


@pytest.mark.timeout(240)
def test_a_new_distribution_is_found_when_it_is_installed_and_passes_lint(python, distribution, tmp_path):
    assert "acme_s1" in run(python, "-m", "catkit_devices", "drivers", cwd=tmp_path)
    for command in (("check",), ("format", "--check")):
        run(sys.executable, "-m", "ruff", *command, "--no-cache", "src", "tests", cwd=distribution)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("distribution", SHAPES, indirect=True)
def test_a_new_distribution_passes_its_tests_also_in_several_processes(python, distribution):
    assert " passed" in run(python, "-m", "pytest", "-q", "-n2", cwd=distribution)


@pytest.mark.timeout(240)
def test_a_new_distribution_passes_strict_types(python, distribution):
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python)
    assert "no issues found in 4 source files" in run(*mypy, "src", "tests", cwd=distribution)


@pytest.mark.timeout(240)
def test_new_plugin_files_of_every_kind_pass_strict_types(python, tmp_path):
    project = tmp_path / "project"
    for kind in KINDS:
        new_driver(f"acme_{kind}", kind, to=project)

    mypy = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python)
    assert "no issues found in 13 source files" in run(*mypy, ".", cwd=project)
