"""The page, as a browser without JavaScript gets it; and what it says when it does not know."""

import contextlib
from html.parser import HTMLParser

import httpx
import pytest

from catkit_devices.errors import SafetyError
from catkit_devices.testbed.status import NOT_KNOWN, unheard
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
