"""A program with a testbed and an experiment, run as a process of its own so that it can be sent real signals."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

SCRIPT = """
import sys, time
from pathlib import Path
from catkit_devices.testbed import Experiment, Testbed, load_configuration

Path(sys.argv[1]).with_name("imported").touch()
{before}

class Lights(Experiment):
    def experiment(self):
        self.devices.tank.lamp = True
        with self.lock("basin"):
            self.devices.basin.lamp = True
            for _ in self.track(iter(int, 1)):
                self.devices.basin.level = 1
                {loop}
    def teardown(self):
        time.sleep(0.2)
        print("torn down", flush=True)

with Testbed(load_configuration([sys.argv[1]], sys.argv[2:])) as testbed:
    testbed.run(Lights(), on_tick={on_tick})
"""

LOOP = "time.sleep(0.002)"
"""The experiment is in a call for about half of the time, and does not keep a processor busy while a test waits."""
CHILDREN = Path(__file__).parents[1] / "children"
CHECK = "safety.level={device='tank', property='level', maximum=5, interval=0.1}"


def start_script(bench, *overrides, loop=LOOP, before="", on_tick=None):
    script = bench.with_name("script.py")
    loop = textwrap.indent(textwrap.dedent(loop), " " * 16).strip()
    script.write_text(SCRIPT.format(loop=loop, before=textwrap.dedent(before), on_tick=on_tick))
    # A session of its own: SIGINT to its process group is what a terminal sends on Ctrl-C.
    return subprocess.Popen(
        [sys.executable, str(script), str(bench), *overrides],
        env={**os.environ, "PYTHONPATH": str(CHILDREN)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_until_lit(bench, journal, until, *overrides, loop=LOOP):
    process = start_script(bench, *overrides, loop=loop)
    until(lambda: "basin LEVEL" in journal.read_text() or process.poll() is not None, timeout=30)
    return process


def of_session(session):
    """Return the processes of a session that have not ended."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def dark_after(journal, lamp, since):
    """Return how many seconds after a moment a lamp went out for good; None while it burns."""
    lines = [line.split() for line in journal.with_suffix(".times").read_text().splitlines()]
    switched = [(float(when), value) for when, label, word, value in lines if (label, word) == (lamp, "LAMP")]
    if not switched or switched[-1][1] != "0":
        return None
    return next(when for when, value in switched if value == "0" and when > since - 5.0) - since
