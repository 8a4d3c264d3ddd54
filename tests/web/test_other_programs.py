"""Programs of others with the web service: Debian's Prometheus, curl, and a Python without our package.

They run with ``--programs``, as .ci/run does, which installs them.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PROMETHEUS = """
scrape_configs:
  - job_name: bench
    scrape_interval: 500ms
    scrape_timeout: 500ms
    static_configs:
      - targets: ["localhost:{port}"]
"""
PLAIN = """
import json, sys
from urllib.request import Request, urlopen

url, token = sys.argv[1:]


def ask(method, path, body=None):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{url}/api/v1/{path}", data, headers, method=method), timeout=30) as answer:
        return json.load(answer)


def events():
    kind = None
    with urlopen(f"{url}/api/v1/events", timeout=30) as lines:
        for line in lines:
            name, _, text = line.decode().rstrip().partition(": ")
            if name == "event":
                kind = text
            elif name == "data":
                yield kind, json.loads(text)


told = {"level": ask("GET", "devices/tank/properties/level")["value"], "states": []}
following = events()
next(following)
told["run"] = ask("POST", "experiments", {"experiment": "Hold", "parameters": {"note": "by urllib"}})["run"]
for kind, data in following:
    if kind == "experiment" and data["name"] == "Hold":
        told["states"].append(data["state"])
        if data["state"] == "running":
            ask("POST", "experiments/Hold/stop", {})
        if data["state"] == "stopped":
            break
told["parameters"] = ask("GET", f"runs/{told['run']}")["parameters"]
print(json.dumps(told))
"""
"""A program that knows nothing but what every Python has."""


@pytest.fixture
def prometheus(service, tmp_path, until):
    """Debian's Prometheus, which scrapes the service: what answers a query."""
    (tmp_path / "prometheus.yml").write_text(PROMETHEUS.format(port=service.port))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1/", timeout=10) as asking:

        def query(text):
            try:
                answer = asking.get("query", params={"query": text})
            except httpx.TransportError:
                return []  # it does not listen yet
            return answer.json()["data"]["result"] if answer.status_code == 200 else []

        try:
            until(lambda: query('up{job="bench"} == 1'), timeout=20)
            yield query
        finally:
            process.kill()
            process.wait()


def test_prometheus_scrapes_every_metric_of_the_dashboard_while_a_mutex_is_held(service, prometheus, other, until):
    with other.devices.tank.lock(timeout=10):
        held = until(lambda: prometheus('catkit_devices_device_held_seconds{device="tank"} > 0'), timeout=10)
        assert held[0]["metric"]["job"] == "bench"
    value = prometheus('catkit_devices_safety_value{check="level"}')[0]
    assert (value["value"][1], value["metric"]["device"]) == ("2", "tank")
    (state,) = prometheus('catkit_devices_device_state{device="tank"} == 1')
    assert state["metric"]["state"] == "open"
    for metric in set(re.findall(r"catkit_devices_\w+", (HOW_TO / "grafana-board.json").read_text())):
        assert prometheus(metric), f"Prometheus has no {metric}"
    assert prometheus("count(catkit_devices_up == 1)")[0]["value"][1] == "1"


def test_the_checker_of_prometheus_finds_no_fault_in_the_metrics(service):
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=service.anybody.get("/metrics").text, text=True, capture_output=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def curl(*arguments):
    done = subprocess.run(["curl", "--silent", *arguments], capture_output=True, timeout=20, check=False)
    return done.returncode, done.stdout


def test_curl_does_what_the_page_says(service):
    (block,) = re.findall(r"```none\n(curl .*?)```", (HOW_TO / "use-from-any-language.md").read_text(), re.DOTALL)
    command = block.replace("http://localhost:8870", service.url).replace("TOKEN_FILE", service.facts["token_file"])
    assert service.url in command
    done = subprocess.run(["bash", "-ec", command], capture_output=True, timeout=20, check=True)
    assert json.loads(done.stdout)["value"] == 3
    assert service.get("wheel.position") == 3
    without = re.sub(r'-H "Authorization[^"]*" ', "", command.replace(": 3}", ": 4}"))
    refused = json.loads(subprocess.run(["bash", "-ec", without], capture_output=True, timeout=20, check=True).stdout)
    assert refused["status"] == 401
    assert service.get("wheel.position") == 3
    assert curl("--fail", f"{service.url}/api/v1/frames/camera")[1].startswith(b"\x89PNG")
    code, events = curl("--no-buffer", "--max-time", "3", f"{service.url}/api/v1/events")
    assert code == 28  # curl has ended it; the service has not
    assert b"event: status\n" in events


def test_a_python_without_our_package_reads_starts_a_run_and_follows_it(service):
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PLAIN, service.url, service.facts["token"]],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["level"] == 2
    assert told["states"][-1] == "stopped"
    assert "running" in told["states"]
    assert told["parameters"]["note"] == "by urllib"
