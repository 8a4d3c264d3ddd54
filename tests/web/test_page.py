"""The page, as a browser without JavaScript gets it; and what it says when it does not know."""

import contextlib
import html
import io
from html.parser import HTMLParser

import httpx
import numpy as np
import pytest
from PIL import Image

from catkit_devices.datalog import Run
from catkit_devices.errors import SafetyError
from catkit_devices.testbed.status import NOT_KNOWN, unheard
from catkit_devices.web.pages.configuration import findings
from catkit_devices.web.pages.frames import picture, scale_of
from catkit_devices.web.pages.overview import verdict_of


@pytest.fixture
def browser(service):
    """A browser without JavaScript that has signed in."""
    client = httpx.Client(base_url=service.url, headers={"Origin": service.url}, timeout=30, follow_redirects=True)
    with contextlib.closing(client):
        assert "sign in" in client.get("/").text
        assert "you may look and act" in client.post("/login", data={"token": service.facts["token"]}).text
        yield client


def test_the_overview_shows_devices_safety_and_who_has_what(service, browser, other, until):
    with other.devices.tank.lock(timeout=10):
        shown = until(lambda: page if "held for" in (page := browser.get("/").text) else None)
    assert "Running; the safety check passes" in shown
    assert "expected a value 0 to 10" in shown
    assert 'class="marker"' in shown
    assert "test_rest" not in shown
    assert "(pid" in shown


def test_a_value_is_set_by_a_form_and_a_refusal_is_shown(service, browser):
    page = browser.get("/devices/wheel").text
    assert 'name="value"' in page
    done = browser.post("/devices/wheel/set", data={"property": "position", "value": "4"})
    assert done.url.path == "/devices/wheel"
    assert service.get("wheel.position") == 4
    refused = browser.post("/devices/wheel/set", data={"property": "position", "value": "9"})
    assert refused.status_code == 422
    assert "got 9" in refused.text
    inline = browser.post(
        "/devices/wheel/set", data={"property": "position", "value": "9"}, headers={"Accept": "application/json"}
    )
    assert "got 9" in inline.json()["detail"]
    arguments = {"command": "fill", "argument-litres": "0", "argument-label": "it is "}
    called = browser.post("/devices/tank/call", data=arguments, headers={"Accept": "application/json"})
    assert called.json()["done"] == "it is 2"


def test_stop_works_without_javascript_while_the_mutex_is_held(service, browser, other):
    with other.devices.tank.lock(timeout=10):
        other.devices.tank.pump = True
        with httpx.Client(base_url=service.url, headers={"Origin": service.url}, timeout=30) as stranger:
            asked = stranger.post("/stop")
            assert asked.status_code == 401
            assert 'action="/stop"' in asked.text
            assert other.devices.tank.pump is True
            assert "Stopped" in stranger.post("/stop", data={"token": service.facts["token"]}).text
            assert other.devices.tank.pump is False
        other.devices.tank.pump = True
        shown = browser.post("/stop").text
        assert "<h1>Stopped" in shown
        assert "<dt>tank</dt><dd>safe</dd>" in shown
        assert other.devices.tank.pump is False


def test_every_page_can_be_read_and_every_field_has_a_label(service, browser):
    for path in (
        "/",
        "/devices/tank",
        "/devices/gauge",
        "/devices/wheel",
        "/devices/camera",
        "/runs",
        "/locks",
        "/configuration",
        "/login",
    ):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        assert '<html lang="en">' in answer.text
        labels = _Labels()
        labels.feed(answer.text)
        assert not labels.without, (path, labels.without)
    assert browser.get("/devices/none").status_code == 400
    assert "password" not in browser.get("/configuration").text


class _Labels(HTMLParser):
    """Finds the fields that have no label."""

    def __init__(self):
        super().__init__()
        self.without = []
        self._for = set()
        self._inside = 0

    def handle_starttag(self, name, attributes):
        facts = dict(attributes)
        if name == "label":
            self._inside += 1
            self._for.add(facts.get("for"))
        elif (
            name in ("input", "select")
            and facts.get("type") != "hidden"
            and not self._inside
            and facts.get("id") not in self._for
        ):
            self.without.append(facts)

    def handle_endtag(self, name):
        self._inside -= name == "label"


STATUS = {
    "name": "bench", "pid": 1, "time": 0.0, "state": "running", "silent": [], "devices": {}, "experiments": {},
    "telemetry": {},
    "frames": {},
    "safety": {"tripped": None, "permit": None, "not_safe": {}, "checks": {"level": {"problem": None, "silent": None}}},
}  # fmt: skip


def test_the_verdict_is_good_only_if_everything_is_known_and_passes():
    assert verdict_of(STATUS)[0] == "good"
    assert verdict_of(unheard(STATUS, 12.0))[0] == "unknown"
    assert verdict_of(unheard(STATUS, 12.0, SafetyError("level", "too high")))[0] == "bad"
    assert verdict_of({**STATUS, "silent": [{"what": "a server", "pid": 2, "seconds": 3}]})[0] == "unknown"
    assert verdict_of({**STATUS, "state": "ending"})[0] == "unknown"
    assert verdict_of({**STATUS, "devices": {"tank": {"state": f"{NOT_KNOWN}: gone"}}})[0] == "unknown"
    level = STATUS["safety"]["checks"]["level"]
    for wrong in (
        {"not_safe": {"tank": "stuck"}},
        {"checks": {"level": {**level, "problem": "3"}}},
        {"checks": {"level": {**level, "silent": 7}}},
        {"tripped": "level"},
        {"checks": {}},
    ):
        assert verdict_of({**STATUS, "safety": {**STATUS["safety"], **wrong}})[0] != "good", wrong


def test_a_saturated_pixel_is_red_and_counted_and_a_pixel_without_a_value_is_black():
    frame = np.array([[0, 50, 65535], [100, 0, 0]], np.uint16)
    scale = scale_of(frame)
    assert (scale.black, scale.white, scale.saturation, scale.saturated) == (0.0, 65535.0, 65535.0, 1)
    seen = Image.open(io.BytesIO(picture(frame, scale))).convert("RGB")
    assert seen.size == (3, 2)
    assert seen.getpixel((2, 0)) == (255, 0, 60)
    assert seen.getpixel((0, 0)) == (0, 0, 0)
    assert scale_of(frame, 100.0).saturated == 2  # the camera said so
    numbers = np.array([[0.0, np.nan], [1.0, np.inf]])
    assert scale_of(numbers)[:3] == (0.0, 1.0, None)
    assert Image.open(io.BytesIO(picture(numbers, scale_of(numbers)))).convert("RGB").getpixel((1, 0)) == (0, 0, 0)


def test_a_camera_shows_its_newest_frame_with_scale_and_histogram(browser, until):
    def part():
        text = browser.get("/devices/camera/frame", headers={"X-Part": "main"}).text
        return text if "histogram" in text else None

    shown = until(part, 60)
    assert "black is" in shown
    assert "saturated (at 65535)" in shown
    answer = browser.get("/devices/camera/frame.png")
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (128, 128)
    assert 'data-live="/devices/camera/frame"' in browser.get("/devices/camera").text


@pytest.fixture(scope="module")
def recorded(service):
    """A run with a scalar, a curve, an image and a line, which two pages of it must show."""
    with Run.create(service.directory / "runs", "Recorded") as run:
        for value in (1.0, float("nan"), 3.0):
            run.log_scalar("po/wer", value, unit="W")
        run.log_curve("spectrum", [1, 2, 3], [4, 5, 6])
        run.log_array("image", np.arange(12, dtype=np.uint16).reshape(3, 4))
        run.log_array("profile", [1.0, 2.0])
        run.set_outcome("finished")
    return run.path.name


def test_a_run_shows_plots_images_notes_and_files_and_can_be_downloaded(browser, recorded):
    shown = browser.get(f"/runs/{recorded}").text
    assert shown.count("data-plot=") == 3
    told = browser.get(f"/runs/{recorded}/series/scalar/po%2Fwer").json()
    assert told["time"] is True
    assert told["series"][0]["y"] == [1.0, None, 3.0]
    image = browser.get(f"/runs/{recorded}/picture/array/image")
    assert Image.open(io.BytesIO(image.content)).size == (4, 3)
    assert browser.get(f"/runs/{recorded}/picture/array/profile").status_code == 422
    assert f'href="/api/v1/runs/{recorded}/export/csv"' in shown
    table = browser.get(f"/api/v1/runs/{recorded}/export/csv")
    assert "po/wer,1" in table.text
    assert f"{recorded}.csv" in table.headers["content-disposition"]
    noted = browser.post(f"/runs/{recorded}/note", data={"text": "<b>lamp"})
    assert "&lt;b&gt;lamp" in noted.text
    assert "Take the star away" in browser.post(f"/runs/{recorded}/star", data={"star": "yes"}).text


def test_runs_are_found_by_name_and_outcome(browser, recorded):
    assert recorded in browser.get("/runs", params={"name": "Rec", "outcome": "finished"}).text
    assert recorded not in browser.get("/runs", params={"outcome": "failed"}).text
    assert recorded not in browser.get("/runs", params={"name": "Hold"}).text
    assert browser.get("/runs", params={"outcome": "lost"}).status_code == 400


def test_a_device_shows_who_has_changed_it(service, browser, until):
    service.set("wheel.position", 5)
    shown = until(lambda: page if "position set to 5" in (page := browser.get("/devices/wheel").text) else None)
    assert "visitor of the web service" in shown


def test_the_configuration_has_the_result_of_its_check(browser):
    assert "valid; devices: 4, safety checks: 1" in browser.get("/configuration").text


def test_what_check_config_refuses_is_shown_with_the_configuration():
    wheel = {"driver": "thorlabs_fw102c", "address": "ASRL3::INSTR"}
    shown = findings({"testbed": {"name": "bench"}, "devices": {"wheel": {**wheel, "limits": {"positon": [1, 3]}}}})
    assert "devices.wheel.limits.positon" in "".join(shown)
    assert "did you mean 'position'" in html.unescape("".join(shown))
    unknown = findings({"testbed": {"name": "bench"}, "devices": {"wheel": {**wheel, "adress": "1"}}})
    assert "devices.wheel.adress" in "".join(unknown)
    assert "valid; devices: 1" in findings({"testbed": {"name": "bench"}, "devices": {"wheel": wheel}})[0]
