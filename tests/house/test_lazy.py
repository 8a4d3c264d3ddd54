"""A module that is imported late is used only when it is complete, whichever thread imports it."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from catkit_devices.multiprocessing import Process

HALFWAY = """
import importlib, importlib.abc, sys, threading

name, inside = sys.argv[1:]
begun, go_on = threading.Event(), threading.Event()

class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, wanted, path, target=None):
        if wanted.startswith(inside) and name in sys.modules:
            begun.set()
            go_on.wait(60)

from catkit_devices import units
from catkit_devices.multiprocessing import Mutex, SharedMemoryManager

with SharedMemoryManager() as manager:
    shared = manager.get_mutex("shared")
    assert name not in sys.modules
    sys.meta_path.insert(0, Stop())
    thread = threading.Thread(target=importlib.import_module, args=(name,), daemon=True)
    thread.start()
    assert begun.wait(60)

    assert units.convert(1.0, "A") == 1.0
    try:
        units.convert(object(), "A")
    except ValueError:
        pass
    with Mutex("local"), shared:
        pass

    go_on.set()
    thread.join()
"""


@pytest.mark.parametrize(
    ("name", "inside"), [("pint", "pint."), ("asyncio", "asyncio."), ("decimal", "_decimal")], ids=str
)
def test_numbers_and_mutexes_work_while_another_thread_is_importing_a_module(name, inside):
    done = subprocess.run([sys.executable, "-c", HALFWAY, name, inside], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


REGISTRIES = """
import sys, threading
import pint
from catkit_devices import units

sys.setswitchinterval(1e-5)
together, found = threading.Barrier(4), []

def ask():
    together.wait()
    found.append(units.registry())

threads = [threading.Thread(target=ask) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(set(map(id, found))) == 1, found
"""


def test_threads_that_need_units_for_the_first_time_at_once_share_one_registry():
    for _ in range(2):  # without its lock, two to four of them each time
        done = subprocess.run([sys.executable, "-c", REGISTRIES], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_only_two_places_ask_what_has_been_imported():
    asking = [
        str(file)
        for package in ("catkit_devices", "catkit_devices.plugins", "catkit_devices.sim")
        # The first is ours; a test that attached to a testbed may have added its plugins.
        for file in pathlib.Path(__import__(package, fromlist=["__path__"]).__path__[0]).rglob("*.py")
        if "sys.modules" in file.read_text(encoding="utf-8")
    ]

    # An owner asks for one function of asyncio, which is missing until asyncio is there.
    assert sorted(pathlib.Path(file).name for file in asking) == ["lazy.py", "owner.py"]


def see_what_is_imported():
    import pyvisa

    assert pyvisa.ResourceManager
    assert not {"_pytest", "psutil._common", "numpy._core"} & set(sys.modules)


def use_pytest():
    with pytest.raises(ZeroDivisionError, match="by zero"):
        print(1 / 0)


def use_numpy():
    import pyvisa
    from pyvisa.util import from_binary_block

    assert pyvisa.ResourceManager
    values = from_binary_block(b"\1\2", 0, 2, "B", container=np.ndarray)
    assert isinstance(values, np.ndarray)
    assert np.linalg.norm(values) == np.sqrt(5)


@pytest.mark.parametrize("use", [see_what_is_imported, use_pytest, use_numpy])
def test_modules_for_tests_are_imported_in_a_child_process_only_when_it_uses_them(use):
    """Otherwise importing them would take half of the time in which a child starts."""
    process = Process(target=use)
    process.start()
    process.join(60)
