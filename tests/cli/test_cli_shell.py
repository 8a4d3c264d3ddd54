"""``shell``, what a notebook shows, and what processes are called."""

import sys
from pathlib import Path

import pytest

from catkit_devices.datalog import Run, RunReader
from catkit_devices.testbed.processes.environment import short_name


def test_the_shell_has_the_testbed_and_its_devices(running):
    code = "print(testbed.name, devices.wheel.position); print('<td>wheel</td>' in testbed._repr_html_())"
    shown = running.command("shell", "--code", code, IPYTHONDIR=str(running.directory / "ipython")).stdout
    assert "bench 1" in shown
    assert "True" in shown


def test_help_of_a_proxy_has_signatures_units_and_limits(running):
    code = "import inspect; print(inspect.signature(devices.tank.fill)); print(type(devices.wheel).position.__doc__)"
    code += "; print(type(devices.laser).current.__doc__); print(devices.laser._repr_html_())"
    shown = running.command("shell", "--code", code, IPYTHONDIR=str(running.directory / "ipython")).stdout
    assert "(litres: float" in shown
    assert "It is int: from 1 to 6, can be read and set." in shown
    assert "It is float: in mA, " in shown
    assert "<td>current</td><td>Drive current of the channel, in steps of 0.01 mA" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file")
def test_processes_say_what_they_are(running):
    pid = running.json("status")["pid"]
    processes = [Path(f"/proc/{one}") for one in (pid, *children(pid))]
    expected = {"testbed bench", "safety monitor", "bench.devices"}
    assert expected <= {(process / "comm").read_text().strip() for process in processes}
    lines = {(process / "cmdline").read_text().strip("\0 ") for process in processes}
    assert {f"{name} (catkit-devices)" for name in expected} <= lines


def children(pid):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == pid:
            found.append(int(process.name))
    return found


def test_a_server_is_called_by_its_testbed_without_the_pid():
    assert short_name("server 'bench-4242.devices'") == "bench.devices"
    assert short_name("server 'bench-4242_2'") == "bench_2"
    assert short_name("FilterScan") == "FilterScan"


def test_a_notebook_shows_a_run_as_a_table_with_texts_as_they_are(tmp_path):
    with Run.create(tmp_path, "Scan", parameters={"note": "<b>"}) as run:
        run.log_scalar("power", 1.0, "W")
        run.set_outcome("failed", "lamp & fuse")
    with RunReader(run.path) as reader:
        shown = reader._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "failed lamp &amp; fuse" in shown
    assert "<td>scalar</td><td>power</td><td>W</td><td>1</td>" in shown
