"""A bench of simulated instruments in a directory, and the command line run as processes on it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from ready_commands import IMPORTED, OURS, ReadyCommands

PLUGINS = Path(__file__).parent / "bench_plugins"
CHILDREN = Path(__file__).parents[1] / "children"

CONFIGURATION = """
[testbed]
name = "bench"
simulate = true
plugins = ["{plugins}"]
stop_timeout = 5

[simulation]
bench = "optical"

[devices.wheel]
driver = "thorlabs_fw102c"
address = "ASRL3::INSTR"
simulator = "thorlabs_fw102c"
simulator_options = {{ role = "nd", step_time = 0.01 }}
aliases = ["filters"]

[devices.laser]
driver = "thorlabs_mcls1"
address = "ASRL1::INSTR"
simulator = "thorlabs_mcls1"
channel = 1

[devices.tank]
driver = "test_tank"

[devices.gauge]
driver = "test_gauge"

[safety.level]
device = "tank"
property = "level"
minimum = 0
maximum = 10
interval = 0.2
"""

EXPERIMENTS = """
import time
from catkit_devices.testbed import Experiment


class Turn(Experiment):
    '''Turn the wheel.'''

    to: int = 3
    '''The position to turn it to.'''
    fast: bool = False
    words: list[str] = []

    def experiment(self):
        for _ in self.track(range(2), "turns"):
            self.devices.wheel.position = self.to
        self.log_scalar("position", self.devices.filters.position)
        return self.devices.wheel.position


class Hold(Experiment):
    '''Hold the wheel until told to stop.'''

    def experiment(self):
        with self.lock("wheel"):
            self.devices.wheel.position
            for _ in self.track(iter(int, 1), "ticks"):
                time.sleep(0.02)


class Wait(Experiment):
    def experiment(self):
        import pathlib
        while not pathlib.Path("go").exists():
            time.sleep(0.02)


class Fail(Experiment):
    def experiment(self):
        raise ZeroDivisionError("the lamp is too dim")
"""

TALK = """
import time
from catkit_devices.testbed import Experiment


class Talk(Experiment):
    def experiment(self):
        import os, subprocess, sys
        print("said by print")
        os.write(1, b"said by a library\\n")
        subprocess.run(["echo", "said by a program"], check=True)
        print("said on stderr", file=sys.stderr)
        for _ in range(5):
            time.sleep(0.1)
        print("said last", end="")
        return float("nan")


print("said on import", flush=True)
"""


class Bench:
    """A directory with ``bench.toml``, ``work.py`` and ``talk.py``, and a runtime directory of its own."""

    def __init__(self, directory, ready):
        self.directory = directory
        self._ready = ready
        self.runtime = directory / "rt"
        (directory / "bench.toml").write_text(CONFIGURATION.format(plugins=PLUGINS))
        (directory / "work.py").write_text(EXPERIMENTS)
        (directory / "talk.py").write_text(TALK)

    def environment(self, **more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("CATKIT_DEVICES")}
        return {**clean, "CATKIT_DEVICES_RUNTIME": str(self.runtime), "PYTHONPATH": str(CHILDREN), **more}

    def popen(self, *arguments, **options):
        """Start a command; what it prints is to be read, and it is the test that ends it."""
        return subprocess.Popen(
            [sys.executable, "-m", "catkit_devices", *map(str, arguments)],
            cwd=self.directory, env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, **options,
        )  # fmt: skip

    def command(self, *arguments, exit_code=0, timeout=60, **environment):
        """Run a command to its end; it must end with that code, and never with a traceback."""
        result = self._ready.run(arguments, cwd=self.directory, env=self.environment(**environment), timeout=timeout)
        assert result.returncode == exit_code, (result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        return result

    def json(self, *arguments, **options):
        return json.loads(self.command(*arguments, "--json", **options).stdout)

    def until(self, condition, *testbed, timeout=30):
        """Return the first status that satisfies a condition, of a testbed that may still have to start."""
        deadline = time.monotonic() + timeout
        seen = []
        while time.monotonic() < deadline:
            with self.popen("status", *testbed, "--watch", "--json", "--interval", "0.05") as process:
                timer = threading.Timer(deadline - time.monotonic(), process.kill)
                timer.start()
                try:
                    for line in process.stdout:
                        status = json.loads(line)
                        if "error" in status:  # it does not run yet
                            break
                        seen.append({**status, "messages": None})
                        if condition(status):
                            return status
                finally:
                    timer.cancel()
                    process.kill()
        return pytest.fail(f"not within {timeout} s; {len(seen)} times, last {seen[-1:]}")

    def error(self, *arguments, exit_code=2, **options):
        """Return the error of a command that must fail, which fits on a screen."""
        result = self.command(*arguments, exit_code=exit_code, **options)
        assert sum(1 + max(0, len(line) - 1) // 80 for line in result.stderr.splitlines()) <= 20
        return result.stderr

    def start(self, *arguments):
        """Start the testbed in the foreground; return the process once it serves."""
        process = self.popen("start", "--config", "bench.toml", *arguments)
        line = process.stdout.readline()
        if "is running" not in line:
            process.kill()
            pytest.fail(f"not started: {line}{process.stdout.read()}{process.stderr.read()}")
        return process

    @staticmethod
    def end(process):
        """End a process that a test started, however the test went."""
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        for stream in (process.stdout, process.stderr):
            stream.close()


@pytest.fixture(scope="session")
def ready():
    """Runs commands in processes that begin with everything imported."""
    commands = ReadyCommands({**os.environ, "PYTHONPATH": str(CHILDREN)}, "catkit_devices.cli", [*IMPORTED, *OURS])
    yield commands
    commands.close()


@pytest.fixture
def bench(tmp_path, ready):
    return Bench(tmp_path, ready)


@pytest.fixture(scope="module")
def running(tmp_path_factory, ready):
    """A testbed that runs, for tests that leave it as it was."""
    bench = Bench(tmp_path_factory.mktemp("bench"), ready)
    process = bench.start()
    yield bench
    bench.end(process)
