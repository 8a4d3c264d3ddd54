"""The page in a real browser: Debian's Chromium, driven by its own driver.

It runs with ``--browser``, as .ci/run does, which installs both, and axe-core.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Service
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
"""axe-core, which finds what cannot be read or reached by everybody (https://github.com/dequelabs/axe-core)."""
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """Look for none in this module: a browser starts processes, and keeps them, as it likes."""


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


class Browser:
    """The browser on the pages of one service.

    Args:
        driver: of the browser.
        service: whose pages.
        until: waits for a condition.
    """

    def __init__(self, driver, service, until):
        self.driver, self.service, self._until = driver, service, until

    def go(self, path):
        self.driver.get(self.service.url + path)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css="main"):
        """Return the text of an element; the page may be changing."""
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def type_into(self, css, text):
        """Type in place of what a field has. The page may replace the field meanwhile: the new one has the focus."""
        self.driver.execute_script("document.querySelector(arguments[0]).select()", css)
        webdriver.ActionChains(self.driver).send_keys(text).perform()

    def value_of(self, css):
        return self.driver.execute_script("return document.querySelector(arguments[0])?.value", css)

    def wait_for(self, text, css="main", timeout=30):
        self._until(lambda: text in self.text(css), timeout)

    def sign_in(self):
        self.go("/login")
        self.find("input[name=token]").send_keys(self.service.facts["token"])
        self.find("main button").click()
        self.wait_for("you may look and act", "footer")

    def resize(self, width, height):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )

    def in_colours(self, scheme):
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )

    def violations(self):
        """Return what axe finds wrong with the page."""
        assert AXE.is_file(), f"expected axe-core at {AXE}; .ci/run says how it is installed by npm"
        axe = AXE.read_text(encoding="utf-8")
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            f"{axe}\n;axe.run(document, {{resultTypes: ['violations']}}).then((found) => done(found.violations))"
        )
        return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]

    def with_javascript(self, wanted):
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not wanted})


@pytest.fixture
def browser(chromium, service, until):
    browser = Browser(chromium, service, until)
    chromium.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.resize(1280, 900)
    yield browser
    browser.with_javascript(True)
    chromium.get("about:blank")


def test_a_value_is_set_in_place_and_a_refusal_stands_beside_the_field(browser, service):
    browser.sign_in()
    browser.go("/devices/wheel")
    form = "form:has(input[value=position])"
    browser.type_into(f"{form} input[name=value]", "2\n")
    browser._until(lambda: service.get("wheel.position") == 2)
    browser._until(lambda: browser.text("p:has(~ form input[value=position]) > b") == "2")
    browser.type_into(f"{form} input[name=value]", "9\n")
    browser._until(lambda: "got 9" in browser.text(f"{form} output"))
    assert browser.driver.current_url.endswith("/devices/wheel")


def test_an_experiment_is_started_watched_live_and_stopped(browser, service):
    browser.sign_in()
    start = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Start Hold')"
    browser.driver.execute_script(f"{start}.dispatchEvent(new PointerEvent('pointerdown', {{bubbles: true}}))")
    browser.driver.execute_script(f"{start}.setAttribute('data-kept', '')")
    browser._until(lambda: browser.driver.execute_script("return next !== null"))  # a version of the page has come
    kept = browser.driver.execute_script(f"return {start}.hasAttribute('data-kept')")
    assert kept, "the page was replaced between the press and the release of a button, so the click would be lost"
    browser.driver.execute_script(f"{start}.dispatchEvent(new PointerEvent('pointerup', {{bubbles: true}}))")
    browser._until(lambda: not browser.driver.execute_script(f"return {start}.hasAttribute('data-kept')"))
    browser.driver.execute_script(f"{start}.click()")
    browser.wait_for("held for", ".devices", timeout=60)
    first = browser.text(".experiments")
    browser.type_into("input[name=argument-note]", "half a")
    browser._until(lambda: browser.text(".experiments") != first)  # it is live
    webdriver.ActionChains(browser.driver).send_keys(" word").perform()
    assert browser.value_of("input[name=argument-note]") == "half a word"
    browser.driver.execute_script("document.querySelector('.experiments form button').click()")
    browser.wait_for("stopped", ".experiments")


def test_stop_works_without_javascript(browser, service):
    browser.sign_in()
    service.set("tank.pump", True)
    browser.with_javascript(False)
    browser.go("/")
    browser.find("button.stop").click()
    browser._until(lambda: "Stopped" in browser.find("main").text)
    assert service.get("tank.pump") is False


def test_a_page_fits_a_phone_and_a_wall_and_no_script_fails(browser, service):
    browser.sign_in()
    for width in (360, 1280, 2560):
        browser.resize(width, 900)
        for path in ("/", "/devices/tank", "/runs", "/locks", "/configuration"):
            browser.go(path)
            assert browser.driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), path
            stop = browser.find("button.stop").rect
            assert stop["height"] >= 44
            assert 0 <= stop["x"] <= width - stop["width"]
    wrong = [one for one in browser.driver.get_log("browser") if "Content Security" in one["message"]]
    assert not wrong


def test_everything_can_be_reached_by_the_keyboard(browser, service):
    browser.go("/")
    reached = set()
    for _ in range(12):
        webdriver.ActionChains(browser.driver).send_keys(Keys.TAB).perform()
        reached.add(browser.driver.execute_script("return document.activeElement.innerText"))
    assert {"To the content", "Overview", "Sign in", "STOP", "tank"} <= reached


def test_a_page_without_news_says_so_shows_nothing_as_safe_and_goes_on_when_there_is_news(chromium, tmp_path, until):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = Service(tmp_path / "first")
    browser = Browser(chromium, first, until)
    try:
        browser.go("/")
        browser.wait_for("Running; the safety check passes")
    finally:
        first.end()
    browser.wait_for("No news since", "#news")
    assert "Not known whether all is well" in browser.text("h1")
    assert "passes" not in browser.text()
    shown = "return [...document.querySelectorAll('.good')].map((one) => one.innerText)"
    assert set(chromium.execute_script(shown)) <= {"not known"}
    second = Service(tmp_path / "second", "--port", str(first.port))
    try:
        browser.wait_for("Running; the safety check passes", timeout=60)
        assert not browser.find("#news").is_displayed()
    finally:
        second.end()


def test_telemetry_is_drawn_live(browser):
    browser.go("/devices/tank")
    points = "return Number(document.querySelector('[data-quantity=\"tank.level\"]')?.dataset.points ?? 0)"
    browser._until(lambda: browser.driver.execute_script("return !!document.querySelector('.uplot canvas')"), 30)
    browser._until(lambda: browser.driver.execute_script(points) > 0, 30)
    first = browser.driver.execute_script(points)
    browser._until(lambda: browser.driver.execute_script(points) > first, 30)
    wrong = [one for one in browser.driver.get_log("browser") if one["source"] in ("javascript", "security")]
    assert not wrong


def test_a_camera_shows_one_frame_after_the_other(browser):
    browser.go("/devices/camera")
    source = "return document.querySelector('#frame')?.naturalWidth && document.querySelector('#frame').src"
    first = browser._until(lambda: browser.driver.execute_script(source), 60)
    browser._until(lambda: browser.driver.execute_script(source) not in (None, 0, first), 30)


def test_a_trip_is_seen_at_once_and_reset_with_a_reason(browser, service):
    browser.sign_in()
    service.operator.post("/api/v1/devices/tank/commands/overflow", json={"arguments": [5.0]})
    browser.wait_for("Safety: ", "h1")
    assert browser.find(".verdict-bad").is_displayed()
    browser._until(lambda: service.get("tank.level") < 10)
    browser.type_into("input[name=reason]", "the tank was emptied\n")
    browser.wait_for("Running; the safety check passes", "h1")


def test_axe_finds_nothing_wrong_with_any_page(browser, service):
    browser.sign_in()
    wrong = {}
    run = service.anybody.get("/api/v1/runs").json()["runs"][0]["run"]  # of the experiment that was started above
    for scheme, width in (("light", 360), ("dark", 1280)):  # colours do not depend on the width
        browser.in_colours(scheme)
        browser.resize(width, 900)
        for path in ("/", "/devices/tank", "/devices/camera", "/runs", f"/runs/{run}", "/locks", "/configuration"):
            browser.go(path)
            found = browser.violations()
            if found:
                wrong[scheme, width, path] = found
    browser.in_colours("light")
    assert not wrong
