"""New drivers, made by somebody who has installed the wheel, pass their tests and the usual checks."""

import subprocess
import sys

import pytest
from installing import run

LINT = ("ANN", "B", "D", "E", "F", "I", "N", "PT", "RUF", "SIM", "UP", "W")


@pytest.mark.timeout(240)
def test_new_plugin_files_pass_their_tests_and_lint(python, tmp_path):
    project = tmp_path / "project"
    project.mkdir()

    run(python, "-m", "catkit_devices", "new-driver", "acme_s1", cwd=project)

    assert "20 passed" in run(python, "-m", "pytest", "-q", "-W", "error", cwd=project)
    ruff = (sys.executable, "-m", "ruff")
    settings = ("--isolated", "--config", "line-length=120", "--no-cache")
    google = ("--config", 'lint.pydocstyle.convention="google"')
    run(*ruff, "check", *settings, *google, f"--select={','.join(LINT)}", "--ignore=D105,D107", ".", cwd=project)
    run(*ruff, "format", *settings, "--check", ".", cwd=project)


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
