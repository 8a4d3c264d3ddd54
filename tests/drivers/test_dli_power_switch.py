"""The driver of a web power switch talks to a real HTTP server with digest authentication."""

import socket
import threading

import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.plugins import _http, dli_power_switch
from catkit_devices.sim.dli_power_switch import PowerSwitch, Server
from catkit_devices.simulation import RealClock


@pytest.fixture
def simulator():
    return PowerSwitch(RealClock(), outlets=4, delay=0.05)


@pytest.fixture
def server(simulator):
    with Server(simulator, password="secret") as server:
        yield server


def switch_at(url, **options):
    return create_device("dli_power_switch", "power", {"address": url, "password": "secret", **options})


@pytest.fixture
def switch(server):
    with switch_at(server.url) as device:
        yield device


def test_an_outlet_is_switched_when_setting_it_returns(simulator, switch):
    switch.outlets[2].enabled = True

    assert simulator.outlets == [False, True, False, False]
    assert [outlet.enabled for outlet in switch.outlets.values()] == simulator.outlets

    switch.outlets[2].enabled = False

    assert not any(simulator.outlets)


def test_the_switch_tells_how_many_outlets_it_has_and_their_names(switch):
    assert {number: outlet.label for number, outlet in switch.outlets.items()} == {
        1: "Outlet 1", 2: "Outlet 2", 3: "Outlet 3", 4: "Outlet 4",
    }  # fmt: skip


def test_making_it_safe_leaves_what_must_stay_on(simulator, server):
    with switch_at(server.url, stay_on=[3]) as switch:
        for outlet in switch.outlets.values():
            outlet.enabled = True

        switch.make_safe()

        assert simulator.outlets == [False, False, True, False]


def test_an_outlet_that_does_not_exist_cannot_stay_on(server):
    with pytest.raises(DeviceOpenError, match=r"stay_on names outlets \[9\], but there are 4"):
        switch_at(server.url, stay_on=[3, 9]).open()


def test_a_relay_that_does_not_follow_is_an_error(monkeypatch):
    monkeypatch.setattr(dli_power_switch.Outlet.enabled, "_seconds", 0.2)
    with (
        Server(PowerSwitch(RealClock(), delay=100.0), password="secret") as server,
        switch_at(server.url) as switch,
        pytest.raises(DeviceTimeoutError, match=r"outlets\[1\].enabled has not settled at True"),
    ):
        switch.outlets[1].enabled = True


def test_a_wrong_password_is_an_error_that_says_so(server):
    with pytest.raises(DeviceOpenError, match="refuses the user or the password: HTTP Error 401"):
        switch_at(server.url, password="secre").open()


def test_a_relay_whose_state_is_not_told_is_not_taken_to_be_off(simulator, switch, monkeypatch):
    switch.outlets[1].enabled = True
    monkeypatch.setattr(simulator, "get", lambda _path: "null")

    with pytest.raises(DeviceFaultError, match="a bool in JSON was expected, got 'null'"):
        switch.make_safe()
    monkeypatch.undo()
    switch.reset()


def test_a_path_that_the_switch_does_not_have_is_an_error(switch):
    with pytest.raises(
        DeviceProtocolError, match=r"'power' \(dli_power_switch\): .* refuses: HTTP Error 404.*relay/no"
    ):
        switch._query("relay/no/")


def test_a_switch_that_is_gone_is_an_error(simulator):
    server = Server(simulator, password="secret")
    switch = switch_at(server.url)
    switch.open()
    server.close()

    with pytest.raises(DeviceDisconnectedError, match=f"{server.url}: .*refused"):
        _ = switch.outlets[1].enabled
    with pytest.raises(Exception, match=server.url):
        switch.close()
    switch._life_.abandon()


def test_a_switch_that_does_not_answer_is_an_error(monkeypatch):
    monkeypatch.setattr(_http, "_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DeviceOpenError, match="timed out"):
        switch_at(f"http://127.0.0.1:{silent.getsockname()[1]}").open()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("answer", [OK + b"[1", OK + b"[1, 2", OK + b"12345", b"SSH-2.0-dropbear\r\n", b""])
def test_an_answer_that_is_not_one_of_a_switch_is_an_error(answer):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve():
            connection, _address = other.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceOpenError, match="http://127.0.0.1"):
            switch_at(f"http://127.0.0.1:{other.getsockname()[1]}").open()
        thread.join()


def test_an_address_that_is_no_url_is_refused():
    with pytest.raises(ConfigurationError, match="must begin with http:// or https://, got '192.168.0.100'"):
        switch_at("192.168.0.100")


def test_no_proxy_is_asked_for_a_switch(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    with switch_at(server.url) as switch:
        assert switch.outlets[1].enabled is False
