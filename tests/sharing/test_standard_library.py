"""CPython's own tests of managers and of Process pass with ours, apart from what is documented to be different.

By default a few for every kind of object; all of them with ``--whole``.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

DIFFERENT = {
    # No serializer but pickle.
    "WithManagerTestRemoteManager.test_remote",
    "WithManagerTestManagerRestart.test_rapid_restart",
    # join() raises when the child was killed or called sys.exit, and when its time is over.
    "WithProcessesTestProcess.test_close",
    "WithProcessesTestProcess.test_kill",
    "WithProcessesTestProcess.test_many_processes",
    "WithProcessesTestProcess.test_parent_process",
    "WithProcessesTestProcess.test_terminate",
    "WithProcessesTestSubclassingProcess.test_sys_exit",
    # join() raises what the child raised.
    "WithProcessesTestSubclassingProcess.test_stderr_flush",
}
"""The tests of CPython that state the opposite of what docs/explanation/mutual-exclusion.md states."""

PARTS = {
    "queues and locks": ["WithManagerTestQueue", "WithManagerTestLock", "WithManagerTestSemaphore"],
    "conditions and events": ["WithManagerTestCondition", "WithManagerTestEvent"],
    "barriers": ["WithManagerTestBarrier"],
    "containers": ["WithManagerTestContainers", "WithManagerTestValue", "WithManagerTestArray", "TestSyncManagerTypes"],
    "pools": ["WithManagerTestPool"],
    "managers": [
        "WithManagerTestMyManager",
        "WithManagerTestRemoteManager",
        "WithManagerTestManagerRestart",
        "WithManagerTestZZZNumberOfObjects",
        "WithManagerTestConnection",
    ],
}
"""The tests of managers, in parts that workers can share."""

A_FEW = {
    "manager": [
        "WithManagerTestQueue.test_get",
        "WithManagerTestQueue.test_put",
        "WithManagerTestLock",
        "WithManagerTestSemaphore.test_semaphore",
        "WithManagerTestCondition.test_waitfor",
        "WithManagerTestEvent",
        "WithManagerTestBarrier.test_wait_return",
        "WithManagerTestContainers",
        "WithManagerTestPool.test_map",
        "WithManagerTestMyManager",
    ],
    "processes": [
        "WithProcessesTestProcess.test_process",
        "WithProcessesTestProcess.test_sentinel",
        "WithProcessesTestSubclassingProcess.test_subclassing",
    ],
}
"""Those that run by default, about a tenth of the time of all; none of them is in ``DIFFERENT``."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("test._test_multiprocessing") is None,
    reason="this interpreter came without CPython's own tests (Debian: package libpython3-testsuite)",
)


def outcomes(whose: str, kind: str, names: list[str], tmp_path: Path) -> dict[str, str]:
    environment = {
        **os.environ,
        "STANDARD_LIBRARY_TESTS": f"{whose} {kind}",
        "CATKIT_DEVICES_RUNTIME": str(tmp_path / "runtime"),
        "PYTHONPATH": str(HERE),
    }
    code = "import sys, standard_library; standard_library.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, *names]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def names_of(kind: str, classes: list[str], tmp_path: Path) -> list[str]:
    code = "import sys, standard_library; print(*standard_library.names(sys.argv[1:]))"
    environment = {**os.environ, "STANDARD_LIBRARY_TESTS": f"stock {kind}", "PYTHONPATH": str(HERE)}
    done = subprocess.run([sys.executable, "-c", code, *classes], env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr[-4000:]
    return done.stdout.split()


def compare(kind: str, classes: list[str], tmp_path: Path, config: pytest.Config) -> None:
    """Run ours without what is different, and stock where ours did not pass; in a soak both, whole."""
    soak = config.getoption("--soak")
    every = names_of(kind, classes, tmp_path)
    ours = outcomes("ours", kind, every if soak else [name for name in every if name not in DIFFERENT], tmp_path)
    others = every if soak else [name for name in every if ours.get(name) != "ok"]
    stock = outcomes("stock", kind, others, tmp_path) if others else {}
    wrong = {name: was for name, was in ours.items() if was not in ("ok", stock.get(name)) and name not in DIFFERENT}
    assert not wrong
    assert {name: stock[name] for name in others if name in DIFFERENT and stock[name] != "ok"} == {}
    if soak:
        assert [name for name in every if name in DIFFERENT and ours[name] == "ok"] == []


@pytest.mark.whole
@pytest.mark.timeout(600)  # CPython's tests of processes that do not pass leave children that sleep for 100 s
@pytest.mark.parametrize("part", PARTS)
def test_all_of_cpythons_tests_of_managers_pass(part, tmp_path, request):
    compare("manager", PARTS[part], tmp_path, request.config)


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_all_of_cpythons_tests_of_processes_pass(tmp_path, request):
    compare("processes", [], tmp_path, request.config)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", A_FEW)
def test_a_few_of_cpythons_tests_pass(kind, tmp_path):
    ours = outcomes("ours", kind, A_FEW[kind], tmp_path)
    assert {name: was for name, was in ours.items() if was != "ok"} == {}
    assert all(any(f"{ran}.".startswith(f"{name}.") for ran in ours) for name in A_FEW[kind])


def test_no_test_of_managers_is_left_out(tmp_path):
    of_every_part = {name for part in PARTS.values() for name in part}
    assert {name.split(".")[0] for name in names_of("manager", [], tmp_path)} <= of_every_part
