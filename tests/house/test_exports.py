"""The public names of each module exist, and importing costs no more than it should."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import catkit_devices


def modules():
    found = ["catkit_devices"]
    for info in pkgutil.walk_packages(catkit_devices.__path__, "catkit_devices."):
        if not info.name.endswith("__main__"):
            found.append(info.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_every_name_in_all_exists(name):
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        assert getattr(module, exported) is not None


def test_every_wait_times_out_with_an_error_of_this_framework():
    folder = Path(catkit_devices.__path__[0])
    for layer in ("multiprocessing", "testbed"):
        for file in (folder / layer).rglob("*.py"):
            assert "raise TimeoutError" not in file.read_text(), f"{file}: raise WaitTimeoutError"


def imported_by(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import catkit_devices", {"numpy", "pyvisa", "pint", "pydantic", "multiprocessing"}),
        (
            "from catkit_devices.multiprocessing import Process, SharedMemoryManager, Mutex",
            {"numpy", "pyvisa", "pint", "pydantic", "cloudpickle", "tblib", "logging", "inspect", "pluggy"},
        ),
        (
            "from catkit_devices import Device, Control",
            {"numpy", "pyvisa", "pint", "pydantic", "matplotlib", "datetime"},
        ),
        ("from catkit_devices.testbed import Experiment", {"numpy", "pyvisa", "pint", "pydantic", "matplotlib"}),
    ],
)
def test_importing_the_package_imports_no_large_library(statement, never):
    assert not imported_by(statement) & never


def test_sending_and_receiving_needs_no_driver_code(runtime):
    code = """
from catkit_devices.multiprocessing import SharedMemoryManager
import sys
def make():
    from catkit_devices.multiprocessing import MutexedDict
    return MutexedDict(a=1)
with SharedMemoryManager() as manager:
    assert manager.get_object("thing", make)["a"] == 1
    assert not {"numpy", "pyvisa", "pint", "pydantic"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
