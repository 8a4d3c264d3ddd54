"""In a notebook, all cells are one owner, and the tasks that they start are others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
from catkit_devices.multiprocessing import SharedMemoryManager
manager = SharedMemoryManager("bench")
manager.connect()
mutex = manager.get_mutex("m")
"""


@pytest.fixture
def notebook(manager, tmp_path):
    """Run cells in a kernel of their own; return what each of them wrote."""

    def run(*cells):
        environment = os.environ | {
            "IPYTHONDIR": str(tmp_path / "ipython"),
            "JPY_SESSION_NAME": "measure/align.ipynb",
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "kernels"),
        }
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("notebook.py")],
            input=json.dumps([BEGIN, *cells]),
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)[1:]

    return run


def test_a_mutex_acquired_in_one_cell_is_used_and_released_in_another(notebook, manager):
    _, again, holder, released = notebook(
        "mutex.acquire()",
        "print(mutex.acquire(timeout=0))\nmutex.release()",
        "print(mutex.holder)",
        "mutex.release()\nprint(mutex.holder)",
    )
    assert again == "True\n"
    assert "by 'align.ipynb' (pid " in holder
    assert released == "None\n"


def test_tasks_that_a_cell_starts_exclude_each_other_and_the_cell(notebook):
    together, refused = notebook(
        """
        import asyncio
        inside = []

        async def enter(number):
            async with mutex:
                inside.append(number)
                assert len(inside) == 1
                await asyncio.sleep(0.01)
                inside.remove(number)

        await asyncio.gather(*(enter(number) for number in range(5)))
        print("together")
        """,
        """
        async def blocks():
            with mutex:
                pass

        with mutex:
            await asyncio.create_task(blocks())
        """,
    )
    assert together == "together\n"
    assert refused.startswith("DeadlockError: ")
    assert "async with" in refused


def test_an_interrupted_cell_does_not_release_what_another_one_acquired(notebook):
    _, interrupted, holder = notebook(
        "mutex.acquire()",
        ("manager.get_event('never').wait()", 1.0),
        "print(mutex.acquire(timeout=0), mutex.holder.depth)",
    )
    assert interrupted.startswith("KeyboardInterrupt")
    assert holder == "True 2\n"
