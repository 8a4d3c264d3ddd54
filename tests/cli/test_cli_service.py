"""A testbed that runs for long: started, stopped, tripped and reset from the command line."""

import json
import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

NO_EXPERIMENTS = {}


@pytest.fixture
def service(bench):
    """A testbed in the foreground of another terminal."""
    process = bench.start()
    yield process
    bench.end(process)


def test_a_testbed_serves_until_it_is_told_to_stop(bench, service):
    assert bench.json("status", "bench")["experiments"] == NO_EXPERIMENTS
    family = psutil.Process(service.pid).children(recursive=True)
    assert len(family) >= 2
    assert "testbed 'bench' has ended" in bench.command("stop", "bench").stdout
    _, errors = service.communicate(timeout=30)
    assert service.returncode == 0, errors
    assert psutil.wait_procs(family, timeout=5)[1] == []
    for arguments in (["status", "bench"], ["stop", "bench"], ["get", "wheel.position"], ["locks"]):
        assert "running" in bench.error(*arguments, exit_code=3)


def test_ctrl_c_ends_serve_in_order(bench, service):
    bench.command("set", "laser.enabled", "on")
    os.killpg(service.pid, signal.SIGINT)
    _, errors = service.communicate(timeout=30)
    assert service.returncode == 130, errors
    assert "Traceback" not in errors


def test_a_second_testbed_of_the_same_name_is_refused_with_advice(bench, service):
    error = bench.error("start", "--config", "bench.toml", exit_code=1)
    assert f"a testbed 'bench' is running already (pid {service.pid}): stop it with" in error
    other = bench.start("--set", 'testbed.name="other"')
    try:
        assert "several testbeds are running: say which of bench, other" in bench.error("status")
        assert bench.json("status", "other")["name"] == "other"
        assert bench.command("get", "wheel.position", "-t", "other").stdout.startswith("wheel.position")
        assert bench.json("status", CATKIT_DEVICES_TESTBED="bench")["name"] == "bench"
    finally:
        bench.end(other)


def test_serve_in_the_background_returns_when_the_testbed_runs(bench):
    started = bench.json("start", "--config", "bench.toml", "--background")
    process = psutil.Process(started["pid"])
    try:
        assert started["log"] == "runs/bench.log"
        assert bench.json("status", started["testbed"])["server"] == started["server"]
        assert bench.command("get", "wheel.position").stdout == "wheel.position = 1\n"
        bench.command("stop")
        assert psutil.wait_procs([process], timeout=10)[1] == []
    finally:
        if process.is_running():
            process.kill()
    assert "is running (pid" in (bench.directory / "runs" / "bench.log").read_text()


def test_a_testbed_in_the_background_that_cannot_start_says_why(bench):
    error = bench.error("start", "-c", "bench.toml", "-b", "--set", "safety.level.maximum=1", exit_code=4)
    assert "safety check 'level': tank.level is 2, expected 0 to 1" in error
    assert "did you mean 'wheel'" in bench.error(
        "start", "-c", "bench.toml", "-b", "--set", 'safety.level.device="weel"', exit_code=2
    )
    assert "--config" in bench.error("start")


def test_after_a_trip_everything_is_refused_until_safety_is_reset(bench, service):
    bench.command("set", "laser.enabled", "on")
    # Whether it is answered before the trip takes the mutex from it is a matter of luck.
    bench.popen("set", "tank.level", "11").communicate(timeout=30)
    bench.until(lambda status: status["safety"]["tripped"])
    result = bench.command("status", "bench", exit_code=4)
    assert "SAFETY TRIPPED" in result.stdout
    assert "tank.level is 11, expected 0 to 10" in result.stdout
    assert "safety check 'level'" in bench.error("set", "laser.enabled", "on", exit_code=4)
    assert bench.command("get", "laser.enabled").stdout == "laser.enabled = False\n"
    assert "safety check 'level'" in bench.error("run", "work.py:Turn", exit_code=4)
    assert "tank.level is 11" in bench.error("reset-safety", "bench", exit_code=4)
    assert "tank.level is 11" in bench.error("set", "tank.level", "3", exit_code=4)


def test_a_trip_is_reset_when_all_is_well_again(bench, service, until):
    """The level goes back by itself, as humidity does."""
    bench.popen("call", "tank.overflow", "0.6").communicate(timeout=30)
    bench.until(lambda status: status["safety"]["tripped"])
    until(lambda: bench.command("get", "tank.level").stdout == "tank.level = 2.0\n")
    dry = bench.error("set", "wheel.position", "2", "--dry-run", exit_code=4)
    assert "`catkit-devices reset-safety bench`" in dry
    reset = bench.command("reset-safety", "--reason", "the tank is empty").stdout.splitlines()
    assert "safety is reset" in reset[0]
    assert reset[1] == "  level: 2.0, expected a value 0 to 10"
    assert bench.command("set", "wheel.position", "2").stdout == "wheel.position = 2\n"
    assert bench.command("status", "bench").returncode == 0
    assert "tripped" in bench.error("reset-safety", exit_code=1)
    bench.command("stop")
    service.communicate(timeout=30)
    assert service.returncode == 0


def test_a_device_is_used_once_without_a_running_testbed(bench):
    assert bench.command("set", "wheel.position", "2", "--config", "bench.toml").stdout == "wheel.position = 2\n"
    assert bench.json("get", "wheel.position", "-c", "bench.toml")["value"] == 1  # another testbed, another wheel
    assert bench.command("call", "tank.fill", "1", CATKIT_DEVICES_CONFIG="bench.toml").stdout == "'3'\n"
    assert "no testbed is running" in bench.error("status", exit_code=3)


def test_a_closed_device_is_opened_when_somebody_asks_for_it_to_be_made_safe(bench):
    """What a killed program has left on is in none of this testbed's states."""
    plugins, lamp = Path(__file__).parents[1] / "testbed" / "bench_plugins", bench.directory / "shines"
    (bench.directory / "lamp.toml").write_text(
        f"[testbed]\nname = 'lamps'\nsimulate = true\nplugins = ['{plugins}']\n"
        f"[devices.lamp]\ndriver = 'lamp'\nfile = '{lamp}'\n"
    )
    lamp.touch()
    bench.command("call", "lamp.make_safe", "--config", "lamp.toml")
    assert not lamp.exists()


def test_a_testbed_that_run_has_started_ends_only_when_other_runs_have_left_it(bench):
    first = bench.popen("run", "work.py:Hold", "-c", "bench.toml")
    second = None
    try:
        bench.until(lambda status: status["devices"]["wheel"]["holder"])
        second = bench.popen("run", "work.py:Wait")
        bench.until(lambda status: "Wait" in status["experiments"])
        bench.command("stop", "bench", "-e", "Hold", "--finish")
        bench.until(lambda status: status["experiments"]["Hold"]["state"] == "finished")
        (bench.directory / "go").touch()
        _, errors = second.communicate(timeout=30)
        assert second.returncode == 0, errors
        _, errors = first.communicate(timeout=30)
        assert first.returncode == 0, errors
        assert "waiting for Wait, which joined this testbed" in errors
    finally:
        for process in (first, second):
            if process is not None:
                bench.end(process)


def test_the_configuration_has_the_page_served_beside_the_testbed(bench, until):
    """The token is not printed where it would stay in a log."""
    words = ["--set", "testbed.serve=true", "--set", "testbed.serve_port=0", "--json"]
    started = json.loads(bench.command("start", "--config", "bench.toml", "--background", *words, timeout=110).stdout)
    process = psutil.Process(started["pid"])
    try:
        (file,) = until(lambda: list(bench.runtime.glob("*.web.token")))
        token, port = file.read_text().strip(), file.name.removesuffix(".web.token").rpartition("-")[2]
        status = httpx.get(f"http://localhost:{port}/api/v1/status", headers={"Authorization": f"Bearer {token}"})
        assert status.json()["name"] == "bench"
        bench.command("stop", "bench")
        assert psutil.wait_procs([process], timeout=30)[1] == []
        assert not file.exists()
    finally:
        if process.is_running():
            process.kill()
    assert token not in (bench.directory / "runs" / "bench.log").read_text()
