"""What somebody has who installs the wheel: the plugin in another project, and drivers to begin with."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import filelock
import pytest

ROOT = Path(__file__).parents[2]


def run(*command, cwd, **environment):
    """Run a command; return its output, or fail with it."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**inherited, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, worker_id):
    """The wheel of this repository, built once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    directory = shared / "wheel"
    with filelock.FileLock(shared / "wheel.lock"):
        if not list(directory.glob("*.whl")):
            source = shared / "source"
            source.mkdir()
            for name in ("catkit_devices", "plugins", "sim", "config", "pyproject.toml", "README.md", "LICENSE"):
                source.joinpath(name).symlink_to(ROOT / name)
            pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
            run(*pip, "--wheel-dir", directory, source, cwd=shared)
    return next(directory.glob("*.whl"))


@pytest.fixture
def python(wheel, tmp_path):
    """An interpreter that has the wheel, and what the wheel depends on."""
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    site = next(tmp_path.glob("venv/lib/python*/site-packages"), tmp_path / "venv/Lib/site-packages")
    # A path in a .pth file is searched behind this directory, and its own .pth files are not read: the editable
    # installation of this repository, if there is one, stays out of it.
    site.joinpath("dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, cwd=tmp_path)
    found = next(path for path in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if path.exists())
    where = run(found, "-c", "import catkit_devices.plugins as plugins; print(*plugins.__path__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    return found


def catkit_devices(python, *arguments, cwd):
    return run(python, "-m", "catkit_devices", *arguments, cwd=cwd)


LINT = ("ANN", "B", "D", "E", "F", "I", "N", "PT", "RUF", "SIM", "UP", "W")


@pytest.mark.timeout(240)
def test_new_plugin_files_pass_their_tests_and_lint(python, tmp_path):
    project = tmp_path / "project"
    project.mkdir()

    catkit_devices(python, "new-driver", "acme_s1", cwd=project)

    assert "20 passed" in run(python, "-m", "pytest", "-q", "-n2", "-W", "error", cwd=project)
    ruff = (sys.executable, "-m", "ruff")
    settings = ("--isolated", "--config", "line-length=120", "--no-cache")
    google = ("--config", 'lint.pydocstyle.convention="google"')
    run(*ruff, "check", *settings, *google, f"--select={','.join(LINT)}", "--ignore=D105,D107", ".", cwd=project)
    run(*ruff, "format", *settings, "--check", ".", cwd=project)


@pytest.mark.timeout(240)
def test_a_new_distribution_passes_its_tests_lint_and_strict_types(python, tmp_path):
    catkit_devices(python, "new-driver", "acme_s1", "--package", cwd=tmp_path)
    project = tmp_path / "catkit-devices-acme-s1"
    site = next(tmp_path.glob("venv/lib/python*/site-packages"))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", site, project, cwd=tmp_path)

    assert "acme_s1" in catkit_devices(python, "drivers", cwd=tmp_path)
    assert "20 passed" in run(python, "-m", "pytest", "-q", cwd=project)
    for command in (("check",), ("format", "--check")):
        run(sys.executable, "-m", "ruff", *command, "--no-cache", "src", "tests", cwd=project)
    mypy = (sys.executable, "-m", "mypy", "--python-executable", python)
    assert "no issues found in 4 source files" in run(*mypy, "src", "tests", cwd=project)


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
