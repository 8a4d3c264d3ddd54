"""What somebody has who installs the wheel: an interpreter with it, and with what it depends on."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from installing import ROOT, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


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


def with_dependencies(requirement, installed):
    """Return the names of the distributions that a requirement installs, as the installed wheel says it."""
    (wheel,) = metadata.distributions(name="catkit-devices", path=[str(installed)])
    found = {}
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        here = wheel if wanted.name == "catkit-devices" else metadata.distribution(wanted.name)
        extras = found.setdefault(canonicalize_name(wanted.name), set())
        new = {*wanted.extras, ""} - extras
        extras |= new
        for text in here.requires or ():
            one = Requirement(text)
            if any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in new):
                waiting.append(one)
    return set(found) - {"catkit-devices"}


@pytest.fixture(scope="session")
def dependencies(once, installed):
    """The directory with what ``pip install 'catkit-devices[pytest]'`` installs beside the wheel, and nothing else."""

    def link(directory):
        names = with_dependencies("catkit-devices[pytest]", installed)
        for name in names | {"pytest-xdist", "execnet"}:  # for -n2
            here = metadata.distribution(name)
            for top in {file.parts[0] for file in here.files} - {"..", "__pycache__"}:
                place = directory / top
                if not place.exists():
                    place.symlink_to(here.locate_file(top))

    return once("dependencies", link)


@pytest.fixture
def python(installed, dependencies, tmp_path):
    """An interpreter that has the wheel, and what the wheel depends on."""
    run(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    site = next(tmp_path.glob("venv/lib/python*/site-packages"), tmp_path / "venv/Lib/site-packages")
    # A path in a .pth file is searched behind this directory, and its own .pth files are not read.
    site.joinpath("dependencies.pth").write_text(f"{installed}\n{dependencies}\n")
    found = next(path for path in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if path.exists())
    for name, module, main in (("catkit-devices", "catkit_devices.cli", "main"), ("pytest", "pytest", "console_main")):
        command = found.with_name(name)
        command.write_text(f"#!{found}\nimport sys\nfrom {module} import {main}\nsys.exit({main}())\n")
        command.chmod(0o755)
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
