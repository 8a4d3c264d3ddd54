"""Every test has a runtime directory of its own and leaves no process behind."""

import contextlib
import glob
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import filelock
import numpy as np  # noqa: F401 - see below
import psutil
import pytest
from ready_children import ReadyChildren

# Child processes search where this one does, and find there what is quickly imported; this one has all of that already.
sys.path.insert(0, str(Path(__file__).parent / "children"))

if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Processes are started here by the hundred, and each would compile every module: they keep it for this run only.
    compiled = tempfile.TemporaryDirectory(prefix="compiled-", ignore_cleanup_errors=True)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = compiled.name
    sys.dont_write_bytecode = False

for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTSTP"):
    # A shell starts background jobs with these signals ignored, and their children inherit this.
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)


def pytest_xdist_auto_num_workers():
    """Return two workers more than there are processors: much of a test's time it waits for other processes."""
    return (os.cpu_count() or 1) + 2


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long randomised tests at full length")
    parser.addoption("--foreign", action="store_true", help="try every driver of other frameworks, not just some")
    parser.addoption("--browser", action="store_true", help="try the page in Debian's Chromium, as .ci/run does once")
    parser.addoption(
        "--programs", action="store_true", help="let Prometheus and curl use the web service, as .ci/run does once"
    )
    parser.addoption(
        "--whole", action="store_true", help="run all that takes long and seldom finds something, as .ci/run does once"
    )
    parser.addoption(
        "--real-children", action="store_true", help="start every child process as users do, as .ci/run does once"
    )
    parser.addoption("--portable", action="store_true", help="take away what only Linux has (CATKIT_DEVICES_PORTABLE)")
    parser.addoption(
        "--soak-seconds", type=float, help="how long the testbed's soak test runs: 5 s, or an hour by --soak"
    )


ONLY_FOREIGN = {"peers", "tango_control", "test_pymeasures_own_tests.py", "test_qcodes.py"}
"""Modules and directories that need what the extra ``peers`` installs, or take long: they run with ``--foreign``."""


def pytest_ignore_collect(collection_path, config):
    """Leave out the modules whose whole work takes long, and what needs others' programs, unless they are asked for."""
    name, option = collection_path.name, config.getoption
    left_out = (
        (name in ONLY_FOREIGN and not option("--foreign"))
        or (name == "test_browser.py" and not option("--browser"))
        or (name == "test_other_programs.py" and not option("--programs"))
        or (name == "test_soak.py" and not (option("--soak") or option("--soak-seconds")))
        or (name.startswith("test_whole_") and not option("--whole"))
    )
    return True if left_out else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leave out what is marked ``whole``, as all of the modules ``test_whole_*`` is, unless it is asked for."""
    for item in items:
        if item.path.name.startswith("test_whole_"):
            item.add_marker("whole")
    if not (config.getoption("--whole") or config.getoption("--soak")):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("whole")])
        items[:] = [item for item in items if not item.get_closest_marker("whole")]


def pytest_report_header(config):
    if config.getoption("--whole"):
        return None
    return (
        "left to .ci/run: what takes long and seldom finds anything (--whole -m whole), test_soak.py (--soak-seconds)"
    )


def pytest_configure(config):
    """Take away what only Linux has, for these tests and their children, if asked to."""
    if config.getoption("--portable"):
        os.environ["CATKIT_DEVICES_PORTABLE"] = "1"


@pytest.fixture
def rounds(request):
    """How often a randomised test repeats itself: ``rounds(20, soak=300)``."""

    def choose(usual, soak):
        return soak if request.config.getoption("--soak") else usual

    return choose


@pytest.fixture(scope="session")
def once(tmp_path_factory, worker_id):
    """What takes long, done by one worker for all: ``once("name", fill)`` returns the directory ``fill`` was given."""

    def done(name, fill):
        own = tmp_path_factory.getbasetemp()
        directory = (own if worker_id == "master" else own.parent) / name
        with filelock.FileLock(f"{directory}.lock"):
            if not directory.exists():
                unfinished = directory.with_name(f"{name} of {worker_id}")
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(directory)
        return directory

    return done


@pytest.fixture(scope="session")
def _ready(request):
    if sys.platform != "linux" or request.config.getoption("--real-children"):
        yield contextlib.nullcontext
        return
    ready = ReadyChildren()
    yield ready.installed
    ready.close()


@pytest.fixture(scope="module")
def ready_children(_ready):
    """In modules that use it, children begin with what they need of other libraries: see ready_children.py."""
    with _ready():
        yield


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    """A runtime directory of the test's own, for it and its children."""
    directory = tmp_path / "rt"
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
    monkeypatch.delenv("CATKIT_DEVICES_SERVER", raising=False)
    return directory


@pytest.fixture(autouse=True)
def _no_process_is_left(runtime):
    before = descendants()
    yield
    deadline = time.monotonic() + 10
    while left := living(descendants() - before):
        if time.monotonic() > deadline:
            described = [(child.pid, child.cmdline()) for child in left]
            for child in left:
                child.kill()
            pytest.fail(f"processes left behind: {described}")
        time.sleep(0.02)
    # A server whose program has ended before it is no descendant any more; its files tell when it has ended.
    while names := [name for name in os.listdir(runtime) if name.endswith((".json", ".sock"))]:
        assert time.monotonic() < deadline, f"servers left behind: {names}"
        time.sleep(0.02)


def descendants():
    """Return the pids of this process's children, of their children, and so on."""
    if not Path("/proc/thread-self/children").exists():  # another system than Linux
        return {child.pid for child in psutil.Process().children(recursive=True)}
    # psutil would read every process of the machine, twice for each of some thousand tests. Here every list is read
    # twice: the system may leave a child out if another one ends meanwhile.
    return below("self") | below("self")


def below(pid):
    """Return the pids of a process's descendants, as Linux lists them for each of its threads."""
    found = set()
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # that thread has ended
            for child in Path(file).read_text().split():
                found |= {int(child)} | below(child)
    return found


def living(pids):
    """Return the processes of these pids that have not ended."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return [process for process in found if alive(process)]


def alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def until(condition, timeout=20.0):
    """Wait until ``condition()`` holds; fail after ``timeout`` seconds."""
    started = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - started
        if waited > timeout:
            pytest.fail(f"not within {timeout} s: {condition}")
        # At most a tenth longer than it takes: many a condition asks another process, which has its work to do.
        time.sleep(min(0.002 + waited / 10, 0.02))
    return value


@pytest.fixture(name="until")
def _until():
    return until
