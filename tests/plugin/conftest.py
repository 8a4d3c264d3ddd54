"""What somebody has who installs the wheel: an interpreter with it, and with what it depends on."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import pytest
from installing import run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed(once):
    """The directory with what the wheel of this repository installs."""

    def install(directory):
        source = directory / "source"
        source.mkdir()
        for name in ("catkit_devices", "plugins", "sim", "config", "pyproject.toml", "README.md", "LICENSE"):
            source.joinpath(name).symlink_to(ROOT / name)
        pip = (sys.executable, "-m", "pip")
        options = ("--quiet", "--no-deps")
        run(*pip, "wheel", *options, "--no-build-isolation", "--wheel-dir", directory, source, cwd=directory)
        (wheel,) = directory.glob("*.whl")
        run(*pip, "install", *options, "--target", directory / "site", wheel, cwd=directory)

    return once("wheel", install) / "site"


@pytest.fixture
def python(installed, tmp_path):
    """An interpreter that has the wheel, and what the wheel depends on."""
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    site = next(tmp_path.glob("venv/lib/python*/site-packages"), tmp_path / "venv/Lib/site-packages")
    # A path in a .pth file is searched behind this directory, and its own .pth files are not read: the editable
    # installation of this repository, if there is one, stays out of it.
    site.joinpath("dependencies.pth").write_text(f"{installed}\n{sysconfig.get_path('purelib')}\n")
    found = next(path for path in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if path.exists())
    where = run(found, "-c", "import catkit_devices.plugins as plugins; print(*plugins.__path__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed)
    return found


@pytest.fixture
def distribution(python, tmp_path, request):
    """The directory of a distribution that ``new-driver`` has made, which is installed; its parameter is the kind."""
    kind = getattr(request, "param", "scpi")
    run(python, "-m", "catkit_devices", "new-driver", "acme_s1", "--kind", kind, "--package", cwd=tmp_path)
    project = tmp_path / "catkit-devices-acme-s1"
    site = next(tmp_path.glob("venv/lib/python*/site-packages"))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", site, project, cwd=tmp_path)
    return project
