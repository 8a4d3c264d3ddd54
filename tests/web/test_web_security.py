"""The web service lets nobody in: requests of other pages, wrong tokens, too much of anything."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import stat
import time
from html.parser import HTMLParser

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catkit_devices.errors import ConfigurationError
from catkit_devices.web import WebServer
from catkit_devices.web.access import Access, Keys, Visitor, is_local
from catkit_devices.web.guard import Guard
from catkit_devices.web.markup import tag

SET = "/api/v1/devices/tank/properties/pump"


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:{port}", "localhost:1", "127.0.0.1.evil.example:{port}"]
)
def test_a_request_under_another_name_is_refused(service, name):
    refused = service.anybody.get("/api/v1/status", headers={"Host": name.format(port=service.port)})
    assert refused.status_code == 421
    assert "is not called" in refused.json()["detail"]


def test_a_request_under_its_own_names_passes(service):
    for name in ("localhost", "127.0.0.1", "LOCALHOST", "[::1]"):
        answer = service.anybody.get("/api/v1/openapi.json", headers={"Host": f"{name}:{service.port}"})
        assert answer.status_code == 200, name


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1"])
def test_a_request_of_a_page_of_another_origin_is_refused(service, origin):
    headers = {"Origin": origin}
    assert service.anybody.get("/api/v1/status", headers=headers).status_code == 403
    assert service.operator.put(SET, json={"value": True}, headers=headers).status_code == 403


@contextlib.contextmanager
def signed_in(service):
    """A browser that has signed in."""
    browser = httpx.Client(base_url=service.url, headers={"Origin": service.url}, timeout=30)
    answer = browser.post("/login", data={"token": service.facts["token"]})
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert service.facts["token"] not in cookie
    with contextlib.closing(browser):
        yield browser


def test_a_form_of_another_site_is_refused_although_the_cookie_is_there(service):
    with signed_in(service) as browser:
        assert browser.post("/devices/tank/set", data={"property": "pump", "value": "off"}).status_code == 303
        for headers in (
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            # The service reads no body of what it refuses: then its answer can be lost when it closes the connection.
            with contextlib.suppress(httpx.ReadError):
                refused = browser.post("/devices/tank/set", data={"property": "pump", "value": "on"}, headers=headers)
                assert refused.status_code == 403, headers
        del browser.headers["Origin"]
        with contextlib.suppress(httpx.ReadError):
            refused = browser.post("/devices/tank/set", data={"property": "pump", "value": "on"})
            assert refused.status_code == 403  # it does not say from which page it comes
        browser.headers["Origin"] = service.url
        assert browser.post("/logout").status_code == 303
        assert browser.post("/devices/tank/set", data={"property": "pump", "value": "on"}).status_code == 401
    assert service.get("tank.pump") is False


def test_nothing_is_changed_without_the_token_or_with_a_wrong_one(service):
    described = service.anybody.get("/api/v1/openapi.json").json()
    tried = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if method == "get":
                continue
            url = re.sub(r"{\w+}", "tank", path)
            assert operation["security"] == [{"token": []}]
            assert service.anybody.request(method, url, json={}).status_code == 401, url
            tried += 1
    assert tried >= 9
    for url in (
        "/devices/tank/set",
        "/devices/tank/call",
        "/locks/break",
        "/stop",
        "/safety/reset",
        "/experiments/start",
    ):
        assert service.anybody.post(url, data={"property": "pump", "value": "on"}).status_code == 401, url
    for wrong in ("x", service.facts["token"][:-1], service.facts["token"] + "x", "ä"):
        refused = service.anybody.put(SET, json={"value": True}, headers={"Authorization": f"Bearer {wrong}".encode()})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
    assert service.get("tank.pump") is False


def test_wrong_tokens_are_answered_ever_slower_and_the_right_one_at_once():
    keys = Keys()
    delays = [keys.delay_of_wrong_token() for _ in range(12)]
    assert delays == sorted(delays)
    assert delays[0] < 1
    assert delays[-1] == 5
    assert keys.of_token(keys.control) is Access.CONTROL
    assert keys.of_token(keys.view) is Access.VIEW
    assert keys.of_token("") is keys.of_token(keys.control + "\0") is Access.NONE


def test_a_token_in_an_address_is_refused(service):
    for name in ("token", "access_token", "TOKEN", "lock"):
        refused = service.anybody.get(f"/api/v1/status?{name}={service.facts['token']}")
        assert refused.status_code == 400
        assert "must not be in an address" in refused.json()["detail"]


def test_every_answer_keeps_scripts_and_frames_of_others_away(service):
    for path in ("/", "/api/v1/status", "/nothing", "/metrics", "/static/page.js"):
        headers = service.anybody.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    page = service.anybody.get("/").text
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


@given(st.text(), st.text())
def test_no_text_becomes_an_element_or_an_attribute(text, value):
    class Reader(HTMLParser):
        found = []

        def handle_starttag(self, name, attributes):
            self.found.append((name, attributes))

    Reader.found = []
    Reader().feed(tag("p", text, title=value))
    assert [(name, [key for key, _ in attributes]) for name, attributes in Reader.found] == [("p", ["title"])]


def test_a_large_body_is_refused_without_being_read(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        head = f"PUT {SET} HTTP/1.1\r\nHost: localhost:{service.port}\r\nContent-Type: application/json\r\n"
        line.sendall(f"{head}Content-Length: 1073741824\r\n\r\n".encode())
        assert b" 413 " in line.recv(4096)
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
        line.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        answer = b""
        try:
            for _ in range(64):
                line.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        except OSError:
            pass  # it was closed before all had been sent
        while chunk := _received(line):
            answer += chunk
        assert not answer or b" 413 " in answer
    assert service.anybody.get("/api/v1/status").status_code == 200


def _received(line):
    try:
        return line.recv(4096)
    except OSError:
        return b""


def test_programs_that_only_open_connections_keep_nobody_out(service):
    lines = []
    try:
        for _ in range(600):
            line = socket.create_connection(("127.0.0.1", service.port), timeout=10)
            line.sendall(b"GET / HTTP/1.1\r\nHost: ")
            lines.append(line)
        begin = time.monotonic()
        assert httpx.get(f"{service.url}/api/v1/openapi.json", timeout=10).status_code == 200
        assert time.monotonic() - begin < 5
        lines[0].settimeout(20)
        assert _received(lines[0]) == b""  # closed
    finally:
        for line in lines:
            line.close()


def test_who_asks_too_often_is_told_so_and_the_operator_is_not():
    keys = Keys()
    guard = Guard(application, keys, {"bench.lab"}, lambda: 8870)

    async def ask(**options):
        return await asked_of(guard, "127.0.0.1", **options)

    async def ask_until_refused():
        assert (await ask()).access is Access.VIEW
        for _ in range(100_000):  # more often than is allowed in a second, also on a slow computer
            if await ask() == 429:
                return True
        return False

    assert asyncio.run(ask_until_refused())
    assert asyncio.run(ask(token=keys.control)).access is Access.CONTROL


def test_another_user_of_the_computer_cannot_read_the_token(service):
    file = service.facts["token_file"]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    with open(file) as opened:
        assert opened.read().strip() == service.facts["token"]
    for path in ("/", "/login", "/configuration", "/metrics", "/api/v1/openapi.json"):
        assert service.facts["token"] not in service.anybody.get(path).text


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def asked_of(guard, host, scheme="http", token=None):
    """Return what a guard makes of a request from some computer: the visitor, or the status of its refusal."""
    headers = [(b"host", b"bench.lab:8870")]
    if token is not None:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {"type": "http", "scheme": scheme, "method": "POST", "path": "/stop", "query_string": b"",
             "headers": headers, "client": (host, 50000)}  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await guard(scope, receive, send)
    return scope["visitor"] if sent[0]["status"] == 200 else sent[0]["status"]


def asked(host, scheme="http", token=None, *, plain_control=False):
    keys = Keys()
    guard = Guard(application, keys, {"bench.lab"}, lambda: 8870, plain_control=plain_control)
    return asyncio.run(asked_of(guard, host, scheme, None if token is None else getattr(keys, token)))


def test_from_another_computer_a_token_is_needed_to_look_and_tls_to_act():
    assert asked("10.0.0.7") == 401
    assert asked("10.0.0.7", token="view").access is Access.VIEW
    plain = asked("10.0.0.7", token="control")
    assert plain.access is Access.VIEW
    assert "control over plain HTTP from another computer is refused" in plain.why_not
    assert asked("10.0.0.7", token="control", scheme="https").access is Access.CONTROL
    assert asked("10.0.0.7", token="control", plain_control=True).access is Access.CONTROL
    assert asked("127.0.0.1", token="control").access is Access.CONTROL
    assert asked("127.0.0.1").access is Access.VIEW
    assert asked("::ffff:127.0.0.1").access is Access.VIEW
    assert not is_local("1.127.0.0")
    assert Visitor("::1", Access.VIEW).local


NAMES = st.sampled_from(
    ["tank", "gauge", "wheel", "level", "position", "Hold", "", "..", "%00", "\U0001f600", "a" * 300]
)
SINGLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
PLAIN = SINGLE | st.lists(SINGLE, max_size=3) | st.dictionaries(st.text(max_size=8), SINGLE, max_size=3)
NEVER_FUZZED = {"call_command", "listen_to_events", "start_experiment", "lock_devices", "reset_safety"}
"""They do what somebody has written, last for ever, or wait by design."""


def test_no_request_that_fits_or_does_not_fit_the_description_breaks_the_service(service, request):
    described = service.anybody.get("/api/v1/openapi.json").json()
    operations = [
        (method, path, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if operation["operationId"] not in NEVER_FUZZED
    ]
    often = 10_000 if request.config.getoption("--soak") else 60

    @settings(max_examples=often, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def ask(data):
        method, path, operation = data.draw(st.sampled_from(operations))
        url = re.sub(r"{\w+}", lambda _: httpx.URL(path=f"/{data.draw(NAMES)}").raw_path.decode()[1:] or "x", path)
        query = {one["name"]: data.draw(st.text(max_size=10)) for one in operation["parameters"]
                 if one["in"] == "query" and data.draw(st.booleans())}  # fmt: skip
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        body = data.draw(PLAIN | st.fixed_dictionaries({}, optional=dict.fromkeys(schema.get("properties", ()), PLAIN)))
        content = json.dumps(body).encode() if data.draw(st.booleans()) else data.draw(st.binary(max_size=50))
        answer = service.operator.request(
            method.upper(), url, params=query, content=None if method == "get" else content,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        driver = answer.status_code >= 500 and answer.json()["type"] != "urn:catkit-devices:internal-server-error"
        assert answer.status_code < 500 or driver, answer.text
        if answer.status_code >= 400:
            assert answer.json()["status"] == answer.status_code

    ask()
    assert service.anybody.get("/api/v1/status").status_code == 200


def test_tls_is_spoken_with_two_files(other, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    key, certificate = tmp_path / "bench.key", tmp_path / "bench.pem"
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(certificate)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with WebServer(other, "localhost", 0, certificate=certificate, key=key) as server:
        assert server.url.startswith("https://localhost:")
        answer = httpx.post(f"{server.url}login", data={"token": server.keys.control}, verify=trusting,
                            headers={"Origin": server.url[:-1]})  # fmt: skip
        assert answer.status_code == 303
        assert "Secure" in answer.headers["set-cookie"]
        assert "strict-transport-security" in answer.headers
    with pytest.raises(ConfigurationError, match="needs both a certificate and its key"):
        WebServer(other, port=0, certificate=certificate)
    with pytest.raises(ConfigurationError, match="cannot be used"):
        WebServer(other, port=0, certificate=key, key=certificate)
