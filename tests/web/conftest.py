"""A testbed and its web service in a process of their own, for all tests of a module."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from catkit_devices.testbed import Testbed

PLUGINS = Path(__file__).parents[1] / "cli" / "bench_plugins"

BENCH = """
[testbed]
name = "bench"
simulate = true
plugins = ["{plugins}"]
stop_timeout = 5
permit_timeout = 60  # a busy computer is no reason for a trip

[devices.tank]
driver = "test_tank"
telemetry = {{ level = 10.0 }}

[devices.gauge]
driver = "test_gauge"

[devices.wheel]
driver = "thorlabs_fw102c"
address = "ASRL3::INSTR"
simulator = "thorlabs_fw102c"
simulator_options = {{ step_time = 0.01 }}

[devices.camera]
driver = "scpi_camera"
address = "TCPIP0::192.168.1.201::5025::SOCKET"
simulator = "scpi_camera"
frames = {{ rate = 5.0 }}

[safety.level]
device = "tank"
property = "level"
minimum = 0
maximum = 10
interval = 0.2
"""

WORK = """
import time
from catkit_devices.testbed import Experiment


class Hold(Experiment):
    '''Hold the tank, with its pump on, until told to stop.'''

    note: str = "nothing"

    def experiment(self):
        with self.lock("tank"):
            self.devices.tank.pump = True
            self.log_scalar("level", self.devices.tank.level)
            for _ in self.track(iter(int, 1), "ticks"):
                time.sleep(0.02)
"""


class Service:
    """The web service of a bench, as a program that uses it.

    Args:
        directory: where it runs.
        arguments: further ones of ``catkit-devices serve``.
    """

    def __init__(self, directory, *arguments):
        self.directory = directory
        self.runtime = directory / "rt"
        self.runtime.mkdir(mode=0o700)
        (directory / "bench.toml").write_text(BENCH.format(plugins=PLUGINS))
        (directory / "work.py").write_text(WORK)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "catkit_devices", "serve", "--config", "bench.toml", "--experiment", "work.py",
             "--port", "0", "--json", *arguments],
            cwd=directory, env={**os.environ, "CATKIT_DEVICES_RUNTIME": str(self.runtime)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        told = ""
        while not told.endswith("}\n"):
            line = self.process.stdout.readline()
            if not line:
                _, errors = self.process.communicate()
                pytest.fail(f"not started: {told}{errors}")
            told += line
        self.facts = json.loads(told)
        self.url = self.facts["url"].rstrip("/")
        self.port = int(self.url.rpartition(":")[2])
        self.anybody = httpx.Client(base_url=self.url, timeout=30)
        self.operator = httpx.Client(
            base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {self.facts['token']}"}
        )

    def set(self, name, value, **headers):
        device, path = name.split(".", 1)
        return self.operator.put(
            f"/api/v1/devices/{device}/properties/{path}", json={"value": value, "wait": 0.3}, headers=headers
        )

    def get(self, name):
        device, path = name.split(".", 1)
        answer = self.operator.get(f"/api/v1/devices/{device}/properties/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def holder(self, device):
        return self.anybody.get("/api/v1/status").json()["devices"][device]["holder"]

    def end(self):
        self.anybody.close()
        self.operator.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("web"))
    yield service
    service.end()


@pytest.fixture
def other(service, monkeypatch):
    """Another program that is attached to the testbed."""
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(service.runtime))
    with Testbed.attach("bench") as client:
        yield client
