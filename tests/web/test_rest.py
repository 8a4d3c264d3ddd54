"""The REST interface: what it does, for whom, and what never waits for a mutex."""

import contextlib
import io
import json
import re
import threading
import time
from unittest.mock import ANY

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from catkit_devices.errors import MutexBrokenError, MutexTimeoutError


@pytest.fixture
def held(other):
    """The tank, held by another program, with its pump on."""
    with other.devices.tank.lock(timeout=10):
        other.devices.tank.pump = True
        yield other.devices.tank


def post(service, path, **body):
    return service.operator.post(f"/api/v1/{path}", json=body)


def test_devices_are_listed_and_described(service):
    devices = service.anybody.get("/api/v1/devices").json()["devices"]
    assert devices["wheel"]["driver"] == "thorlabs_fw102c"
    description = service.anybody.get("/api/v1/devices/wheel").json()
    assert description["properties"]["position"]["writable"]
    unknown = service.anybody.get("/api/v1/devices/weel")
    assert unknown.status_code == 404
    assert "did you mean 'wheel'" in unknown.json()["detail"]


def test_a_property_is_set_and_a_refusal_says_why(service):
    assert service.set("wheel.position", 3).json()["value"] == 3
    assert service.get("wheel.position") == 3
    refused = service.set("wheel.position", 9)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    problem = refused.json()
    assert problem["type"] == "urn:catkit-devices:devicevalueerror"
    assert problem["status"] == 422
    assert "got 9" in problem["detail"]


def test_a_command_is_called_with_arguments_and_an_error_of_a_driver_is_a_problem(service):
    level = service.get("tank.level")
    try:
        done = post(service, "devices/tank/commands/fill", arguments=[1.5], named={"label": "now "})
        assert done.json()["result"] == f"now {level + 1.5:g}"
        assert (
            "takes no argument 'litre'"
            in post(service, "devices/tank/commands/fill", named={"litre": 1}).json()["detail"]
        )
        leak = post(service, "devices/tank/commands/leak")
        assert (leak.status_code, leak.json()["detail"]) == (500, "ZeroDivisionError: no bottom")
        assert "tried to end the program" in post(service, "devices/gauge/commands/leave").json()["detail"]
    finally:
        service.set("tank.level", level)


def test_what_was_not_measured_is_null_with_a_reason(service):
    answer = service.operator.get("/api/v1/devices/gauge/properties/pressure").json()
    assert (answer["value"], answer["reason"]) == (None, "no measurement (nan)")


def test_who_only_looks_reads_without_the_mutex_and_opens_nothing(service, held):
    level = service.anybody.get("/api/v1/devices/tank/properties/level").json()
    assert (level["value"], level["source"]) == (2.0, "telemetry")
    refused = service.anybody.get("/api/v1/devices/tank/properties/pump")
    assert refused.status_code == 403
    assert "takes the mutex" in refused.json()["detail"]


def test_a_request_that_waits_too_long_says_who_has_the_device(service, held):
    refused = service.set("tank.pump", True)
    assert refused.status_code == 423
    assert "held for" in refused.json()["detail"]


def test_a_lock_excludes_others_until_it_is_given_back(service, other):
    lock = post(service, "locks", devices=["tank"], renew_within=60).json()
    with pytest.raises(MutexTimeoutError, match="visitor of the web service"):
        other.devices.tank.acquire(0.1)
    assert service.set("tank.pump", True).status_code == 423
    assert service.set("tank.pump", True, **{"Lock-Token": lock["lock"]}).json()["value"] is True
    header = {"Lock-Token": lock["lock"]}
    assert service.operator.post("/api/v1/locks/renew", headers=header).json()["renew_within"] == 60
    assert service.operator.post("/api/v1/locks/release", headers=header).status_code == 200
    with other.devices.tank.lock(timeout=5):
        assert other.devices.tank.pump is True  # given back in good order: it stays as it is
    assert service.operator.post("/api/v1/locks/renew", headers=header).status_code == 410


def test_a_visitor_that_is_silent_counts_as_dead_and_its_device_is_made_safe(service, other):
    lock = post(service, "locks", devices=["tank"], renew_within=2).json()
    service.set("tank.pump", True, **{"Lock-Token": lock["lock"]})
    with other.devices.tank.lock(timeout=20):
        assert other.devices.tank.pump is False


def test_a_visitor_that_goes_away_during_a_command_counts_as_dead(service, other, until):
    service.set("tank.pump", True)
    with pytest.raises(httpx.ReadTimeout):
        service.operator.post("/api/v1/devices/tank/commands/pause", json={"arguments": [60]}, timeout=0.3)
    with other.devices.tank.lock(timeout=20):
        assert other.devices.tank.pump is False


def test_stop_makes_safe_while_the_mutex_is_held(service, held):
    begin = time.monotonic()
    stopped = post(service, "stop").json()
    took = time.monotonic() - begin
    assert stopped["devices"] == {"tank": "safe", "gauge": ANY, "wheel": ANY, "camera": ANY}
    assert took < 2.0  # a mutex would be waited for for a minute
    assert held.pump is False


def test_a_mutex_is_taken_away_for_a_reason_that_its_holder_learns(service, other):
    refused = service.operator.post("/api/v1/locks/tank/break", json={})
    assert refused.status_code == 400
    assert "reason" in refused.json()["detail"]

    def hold():
        with other.devices.tank.lock(timeout=10):
            taken = post(service, "locks/tank/break", reason="the operator needs it").json()
            assert "pid" in taken["holder"]
            other.devices.tank.pump = True

    with pytest.raises(MutexBrokenError, match=r"the operator needs it \(a visitor of the web service at 127.0.0.1\)"):
        hold()


def test_stop_finds_a_thread_while_more_requests_wait_for_a_mutex_than_there_are_threads(service, held, until):
    def wait():
        service.operator.put("/api/v1/devices/tank/properties/pump", json={"value": True, "wait": 2})

    waiting = [threading.Thread(target=wait) for _ in range(66)]
    for thread in waiting:
        thread.start()
    until(lambda: len(held.mutex.waiters) == 64)
    assert post(service, "stop").json()["devices"]["tank"] == "safe"
    assert held.mutex.waiters
    for thread in waiting:
        thread.join()


def test_an_experiment_is_started_watched_and_stopped_and_its_run_is_there(service, until):
    offered = service.anybody.get("/api/v1/experiments").json()["offered"]
    assert offered["Hold"]["note"]["default"] == "nothing"
    assert post(service, "experiments", experiment="Wait").status_code == 404
    started = post(service, "experiments", experiment="Hold", parameters={"note": "<script>alert(1)</script>"})
    run = started.json()["run"]

    def states():
        return {
            one["name"]: one["state"] for one in service.anybody.get("/api/v1/status").json()["experiments"].values()
        }

    until(lambda: states().get("Hold") == "running", timeout=60)
    until(lambda: service.holder("tank"), timeout=30)
    assert post(service, "stop").json()["experiments"] == ["Hold"]
    until(lambda: states()["Hold"] == "stopped", timeout=30)
    until(lambda: service.get("tank.pump") is False)
    assert service.anybody.get("/api/v1/runs").json()["runs"][0]["run"] == run
    found = service.anybody.get(f"/api/v1/runs/{run}").json()
    assert found["parameters"]["note"] == "<script>alert(1)</script>"
    assert "STOP by a visitor of the web service" in found["detail"]
    assert service.anybody.get(f"/api/v1/runs/{run}/scalars/level").json()["values"] == [2.0]
    assert json.loads(service.anybody.get(f"/api/v1/runs/{run}/files/run.json").content)["name"] == "Hold"
    page = service.anybody.get(f"/runs/{run}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    for outside in ("../../bench.toml", "%2e%2e/%2e%2e/bench.toml", "..%2f..%2fbench.toml", "/etc/passwd", "%00"):
        assert service.anybody.get(f"/api/v1/runs/{run}/files/{outside}").status_code in (404, 421)
    (service.directory / "runs" / run / "away").symlink_to(service.directory / "bench.toml")
    assert service.anybody.get(f"/api/v1/runs/{run}/files/away").status_code == 404


def test_a_frame_comes_as_a_picture_and_raw(service, until):
    cameras = until(lambda: service.anybody.get("/api/v1/frames").json()["cameras"])
    assert list(cameras) == ["camera"]
    answer = service.anybody.get("/api/v1/frames/camera", params={"format": "raw"})
    assert answer.status_code == 200, answer.text
    shape = tuple(map(int, answer.headers["frame-shape"].split(",")))
    raw = np.frombuffer(answer.content, answer.headers["frame-type"]).reshape(shape)
    picture = service.anybody.get("/api/v1/frames/camera")
    assert picture.headers["content-type"] == "image/png"
    seen = Image.open(io.BytesIO(picture.content))
    assert seen.size == shape[::-1]
    assert abs(float(np.mean(np.asarray(seen))) - float(raw.mean())) < 0.2 * raw.mean() + 5  # another frame
    small = service.anybody.get("/api/v1/frames/camera", params={"most": 16, "low": 0, "high": 10})
    assert max(Image.open(io.BytesIO(small.content)).size) <= 16
    assert (small.headers["frame-black"], small.headers["frame-white"]) == ("0", "10")
    unknown = service.anybody.get("/api/v1/frames/tank")
    assert unknown.status_code == 404
    assert "there are those of camera" in unknown.json()["detail"]


def audited(service):
    file = service.directory / "runs" / "bench.logs" / "audit.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_queue_is_filled_changed_and_paused_by_those_who_may(service, until):
    assert service.anybody.get("/api/v1/queue").json() == {"paused": None, "entries": []}
    assert post(service, "queue/pause", reason="the lamp warms up").json()["paused"] == "the lamp warms up"
    first = post(service, "queue", experiment="Hold", parameters={"note": "first --one"})
    assert first.status_code == 201, first.text
    numbers = [first.json()["number"], post(service, "queue", experiment="Hold").json()["number"]]
    assert post(service, "queue", experiment="Hold", parameters={"nothing": 1}).status_code == 422
    assert post(service, "queue", experiment="/etc/passwd").status_code == 404
    moved = post(service, "queue/move", numbers=numbers[1:], to=1).json()
    assert [one["number"] for one in moved["entries"]] == numbers[::-1]
    assert "has no number 99" in post(service, "queue/cancel", numbers=[99]).json()["detail"]
    post(service, "queue/cancel", numbers=numbers[1:])
    assert post(service, "queue/resume").json()["paused"] is None

    def entry():
        entries = service.anybody.get("/api/v1/queue").json()["entries"]
        return next(one for one in entries if one["number"] == numbers[0])

    run = until(lambda: entry()["run"], timeout=100).rpartition("/")[2]
    assert service.anybody.get(f"/api/v1/runs/{run}").json()["parameters"]["note"] == "first --one"
    post(service, "queue/cancel", numbers=numbers[:1])
    until(lambda: entry()["state"] == "cancelled", timeout=100)
    assert "a visitor of the web service" in entry()["user"]
    until(lambda: [one for one in audited(service) if one["target"] == "queue"])


@pytest.mark.parametrize("kind", ["h5", "fits", "csv"])
def test_a_run_is_downloaded_in_each_format(service, kind):
    run = service.anybody.get("/api/v1/runs").json()["runs"][0]["run"]
    answer = service.anybody.get(f"/api/v1/runs/{run}/export/{kind}")
    assert answer.status_code == 200, answer.text
    assert f'filename="{run}.{kind}"' in answer.headers["content-disposition"]
    assert answer.content.startswith({"h5": b"\x89HDF", "fits": b"SIMPLE", "csv": b"time,"}[kind])


def test_no_other_format_and_nothing_outside_of_the_runs_is_exported(service):
    run = service.anybody.get("/api/v1/runs").json()["runs"][0]["run"]
    for path in (f"{run}/export/exe", f"{run}/export/..%2fcsv", "..%2f..%2fetc/export/csv", "%2e%2e/export/csv"):
        assert service.anybody.get(f"/api/v1/runs/{path}").status_code == 404, path


def test_what_visitors_do_is_in_the_audit_trail(service, until):
    service.set("wheel.position", 2)
    post(service, "devices/wheel/make-safe")
    post(service, "stop")

    def done():
        return {
            (one["what"], one["target"])
            for one in audited(service)
            if one["process"] == "visitor of the web service at 127.0.0.1"
        }

    until(lambda: {("set", "wheel"), ("made safe", "wheel"), ("stopped", "everything")} <= done())


def test_telemetry_and_its_history_are_read(service, until):
    reading = service.anybody.get("/api/v1/telemetry").json()["telemetry"]["tank.level"]
    assert reading["value"] == 2.0
    points = until(lambda: service.anybody.get("/api/v1/history/tank.level").json().get("points"), timeout=30)
    assert {"time", "value", "lowest", "highest"} <= points[0].keys()
    assert service.anybody.get("/api/v1/history/tank.levl").status_code == 404


def events(service, **headers):
    """Yield the events of the service: id, kind and data."""
    with service.anybody.stream("GET", "/api/v1/events", headers=headers) as answer:
        fields = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
                fields = {}


def test_events_come_and_go_on_behind_the_last_one_after_a_lost_connection(service):
    with contextlib.closing(events(service)) as listening:
        last, _, _ = next(listening)
    service.set("tank.pump", False)
    with contextlib.closing(events(service, **{"Last-Event-ID": last})) as listening:
        kinds = set()
        for _, kind, data in listening:
            kinds.add(kind)
            if kind == "message" and "has set tank.pump" in data["text"]:
                break
    assert "gap" not in kinds
    with contextlib.closing(events(service, **{"Last-Event-ID": "another-7"})) as listening:
        assert next(listening)[1] == "gap"


def test_metrics_are_in_the_format_of_prometheus_and_take_no_mutex(service, held, until):
    families = {one.name: one for one in text_string_to_metric_families(service.anybody.get("/metrics").text)}
    value = families["catkit_devices_safety_value"].samples[0]
    assert (value.value, value.labels["check"]) == (2.0, "level")
    states = {one.labels["state"]: one.value for one in families["catkit_devices_device_state"].samples
              if one.labels["device"] == "tank"}  # fmt: skip
    assert states["open"] == 1
    assert states["closed"] == 0
    until(lambda: re.search(r'held_seconds{device="tank"} [0-9.]*[1-9]', service.anybody.get("/metrics").text))


def test_the_description_is_made_of_every_operation(service):
    described = service.anybody.get("/api/v1/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    setting = described["paths"]["/api/v1/devices/{device}/properties/{property}"]["put"]
    assert setting["security"] == [{"token": []}]
    assert "value" in setting["requestBody"]["content"]["application/json"]["schema"]["required"]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
