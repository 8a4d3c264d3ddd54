"""Instruments that announce themselves are found, on the loopback interface of this computer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from catkit_devices.errors import ConfigurationError
from catkit_devices.gateway import announcement
from catkit_devices.gateway.announcement import announcing, find_announced

HERE = "127.0.0.1"


def test_what_a_gateway_announces_is_found_until_it_ends():
    with announcing({"meter": "pm100d", "source": "e36312a"}, testbed="bench", host=HERE, port=4881):
        found = {one.address: one.what for one in find_announced(HERE, 1.0)}
    assert found["TCPIP::127.0.0.1::hislip_meter,4881::INSTR"] == "meter of testbed bench (catkit_devices pm100d)"
    assert "TCPIP::127.0.0.1::hislip_source,4881::INSTR" in found
    assert not [one for one in find_announced(HERE, 0.5) if ",4881::" in one.address]


def test_two_testbeds_may_have_the_same_names():
    with (
        announcing({"meter": "pm100d"}, testbed="bench", host=HERE, port=4882),
        announcing({"meter": "pm100d"}, testbed="bench", host=HERE, port=4883),
    ):
        found = {one.address for one in find_announced(HERE, 1.0)}
    assert {f"TCPIP::127.0.0.1::hislip_meter,{port}::INSTR" for port in (4882, 4883)} <= found


def test_instruments_of_lxi_are_found_with_what_they_say_of_themselves():
    import socket

    import zeroconf

    said = {"txtvers": "1", "Manufacturer": "ACME", "Model": "M1", "SerialNumber": "7"}
    network = zeroconf.Zeroconf(interfaces=[HERE])
    try:
        for kind, port in (("_hislip._tcp", 4880), ("_vxi-11._tcp", 111), ("_scpi-raw._tcp", 5025)):
            network.register_service(zeroconf.ServiceInfo(
                f"{kind}.local.", f"ACME M1.{kind}.local.", addresses=[socket.inet_aton(HERE)], port=port,
                properties=said, server="acme.local.",
            ), cooperating_responders=True)  # fmt: skip
        found = [one for one in find_announced(HERE, 1.0) if "ACME" in one.what]
    finally:
        network.close()
    assert {one.address for one in found} == {
        "TCPIP::127.0.0.1::hislip0::INSTR", "TCPIP::127.0.0.1::inst0::INSTR", "TCPIP::127.0.0.1::5025::SOCKET",
    }  # fmt: skip
    assert {one.what for one in found} == {"ACME M1 (ACME M1 7)"}


def test_discover_looks_on_the_network_when_told_to():
    with announcing({"meter": "pm100d"}, testbed="bench", host=HERE, port=4884):
        command = [sys.executable, "-m", "catkit_devices", "discover", "--network", "--interface", HERE, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    rows = {row["address"]: row["what"] for row in json.loads(done.stdout)["resources"]}
    assert rows["TCPIP::127.0.0.1::hislip_meter,4884::INSTR"] == "meter of testbed bench (catkit_devices pm100d)"


def test_what_cannot_be_done_is_said(monkeypatch):
    with pytest.raises(ConfigurationError, match=r"203\.0\.113\.9: multicast DNS is not possible there"):
        find_announced("203.0.113.9", 0)
    with pytest.raises(ConfigurationError, match="expected an IPv4 address"), \
            announcing({}, testbed="bench", host="::1", port=4885):  # fmt: skip
        pass
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'catkit-devices\[mdns\]'"):
        announcement.find_announced(HERE, 0)
