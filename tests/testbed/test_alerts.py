"""Notifications of the configuration: what is sent, and that a bad receiver delays nothing."""

import http.server
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from catkit_devices.errors import SafetyError, StopExperiment
from catkit_devices.testbed.alerts import Alerts
from catkit_devices.testbed.configuration.model import NotificationsConfiguration

KEEP = "import pathlib, sys; pathlib.Path({!r}).open('a').write(sys.stdin.read() + chr(10))"
TRIP = ("safety_tripped", {"check": "humidity", "problem": "55 is above 50"})


@pytest.fixture
def start():
    made = []

    def begin(**wanted):
        said = []
        alerts = Alerts(NotificationsConfiguration(**wanted), "bench", lambda level, text: said.append((level, text)))
        made.append(alerts)
        return alerts, said

    yield begin
    for alerts in made:
        alerts.end()


@pytest.fixture
def webhook():
    """A server that keeps what it is sent, and answers with the status that the address names."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_a_trip_a_fault_and_a_failed_run_are_told_and_nothing_else(start, tmp_path):
    file = tmp_path / "told"
    alerts, said = start(command=[sys.executable, "-c", KEEP.format(str(file))])
    alerts.tell(*TRIP)
    alerts.tell("device_fault", {"device": "laser", "problem": "device 'laser' could not be made safe"})
    finished = {"experiment": "Scan", "run": Path("runs/1")}
    alerts.tell("experiment_finished", {**finished, "error": ZeroDivisionError("too dim")})
    for error in (None, StopExperiment("enough"), SafetyError("humidity", "told already")):
        alerts.tell("experiment_finished", {**finished, "error": error})
    alerts.tell("device_opened", {"device": "laser"})
    alerts.end()
    told = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(one["event"], one["text"]) for one in told] == [
        ("trip", "bench: safety tripped: humidity: 55 is above 50"),
        ("fault", "bench: device 'laser' could not be made safe"),
        ("failed run", "bench: Scan failed: ZeroDivisionError: too dim (run runs/1)"),
    ]
    assert not said


def test_a_webhook_gets_the_notification_as_json(start, webhook):
    address, received = webhook
    alerts, said = start(webhook=f"{address}/200", events=["trip"])
    alerts.tell("device_fault", {"device": "laser", "problem": "?"})
    alerts.tell(*TRIP)
    alerts.end()
    assert [(one["testbed"], one["event"]) for one in received] == [("bench", "trip")]
    assert not said


def test_one_that_fails_is_logged_and_the_other_is_sent_all_the_same(start, webhook):
    address, received = webhook
    command = [sys.executable, "-c", "import sys; sys.exit('no such mail server')"]
    alerts, said = start(command=command, webhook=f"{address}/500")
    alerts.tell(*TRIP)
    alerts.end()
    assert len(received) == 1
    assert sorted(level for level, _ in said) == [logging.ERROR, logging.ERROR]
    texts = " ".join(text for _, text in said)
    assert "no such mail server" in texts
    assert "500" in texts
    assert "55 is above 50" in texts


def test_a_command_that_hangs_is_killed_with_what_it_started_and_delays_nobody(start, tmp_path):
    pid = tmp_path / "pid"
    hang = f"import os, subprocess; subprocess.run(['sh', '-c', 'echo $$ > {pid}; exec sleep 600'])"
    alerts, said = start(command=[sys.executable, "-c", hang], timeout=1.5)
    begun = time.monotonic()
    for _ in range(150):  # more than wait
        alerts.tell(*TRIP)
    assert time.monotonic() - begun < 1.0
    deadline = time.monotonic() + 30
    while not any("was killed" in text for _, text in said):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert any("left out" in text for _, text in said)
    left = int(pid.read_text())
    while os.path.exists(f"/proc/{left}") and "Z" not in Path(f"/proc/{left}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("wanted", [{"webhook": "ftp://x"}, {"events": ["everything"]}, {"command": "mail"}])
def test_a_mistake_in_the_configuration_is_found(wanted):
    with pytest.raises(ValidationError):
        NotificationsConfiguration(**wanted)
