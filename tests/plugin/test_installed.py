"""New drivers, made by somebody who has installed the wheel, pass their tests and the usual checks."""

import os
import subprocess
import sys

import pytest
from installing import ROOT, run

from catkit_devices.cli.new_driver import new_driver

KINDS = ("scpi", "serial", "sdk", "frames", "configuration")
LINT = ("ANN", "B", "D", "E", "F", "I", "N", "PT", "RUF", "SIM", "UP", "W")


@pytest.mark.timeout(240)
def test_new_plugin_files_of_every_kind_pass_their_tests_and_lint(python, tmp_path):
    project = tmp_path / "project"
    for kind in KINDS:
        new_driver(f"acme_{kind}", kind, to=project)

    quick = "not from_two_processes"  # that takes long, and is the same for all: test_whole_distribution.py
    passed = run(python, "-m", "pytest", "-q", "-W", "error", "-k", quick, cwd=project)

    assert "101 passed, 5 deselected" in passed
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


def test_a_new_driver_overwrites_nothing(tmp_path):
    command = (sys.executable, "-m", "catkit_devices", "new-driver")
    for name, words in (
        ("acme_s1", "would overwrite acme_s1.py"),
        ("thorlabs_fw102c", "there is a driver 'thorlabs_fw102c' already"),
        ("Acme-S1", "lower-case words with underscores, such as acme_s1, got 'Acme-S1'"),
    ):
        tmp_path.joinpath("acme_s1.py").write_text("mine")
        done = subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert words in done.stderr
    assert tmp_path.joinpath("acme_s1.py").read_text() == "mine"


def test_the_kind_of_driver_is_asked_for_on_a_terminal_only(tmp_path):
    command = (sys.executable, "-m", "catkit_devices", "new-driver", "acme_cam")
    told = subprocess.check_output(command, cwd=tmp_path, stdin=subprocess.DEVNULL, text=True)
    assert "kind: scpi" in told
    assert f"--kind {'|'.join(KINDS)}" in " ".join(told.split())

    near, far = os.openpty()
    with subprocess.Popen((*command, "--to", "asked"), cwd=tmp_path, stdin=far, stdout=far, stderr=far) as asked:
        os.write(near, b"camera\nsdk\n")
        assert asked.wait(60) == 0
    shown = os.read(near, 10_000).decode()
    os.close(near)
    os.close(far)

    assert "expected one of scpi, serial, sdk, frames, configuration, got 'camera'" in shown
    assert tmp_path.joinpath("asked", "_acme_cam_stand_in.py").exists()
