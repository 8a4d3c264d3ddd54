"""A device that is made safe by another one, on the same server and on another."""

from pathlib import Path

import pytest

from catkit_devices.device import Device
from catkit_devices.errors import CatkitDevicesError, DeviceFaultError, DeviceOpenError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.locks.owner import calling, emergency_call
from catkit_devices.testbed import Testbed, load_configuration
from catkit_devices.testbed.safety.other_devices import OTHER_DEVICES, REGISTER, Register

PLUGINS = Path(__file__).parent / "bench_plugins"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Have the drivers of these tests importable, here and in child processes."""
    monkeypatch.syspath_prepend(PLUGINS)


@pytest.fixture(params=["devices", "other"])
def furnace_bench(request, tmp_path):
    """The file of a testbed with a furnace, and a valve on the same server or on another; the file of the gas."""
    gas = tmp_path / "gas"
    (tmp_path / "furnace.toml").write_text(f"""
[testbed]
name = "furnace"
plugins = ["{PLUGINS}"]
runs = "{tmp_path / "runs"}"
stop_timeout = 2

[devices.valve]
driver = "valve"
gas = "{gas}"
server = "{request.param}"

[devices.furnace]
driver = "furnace"
uses = {{ valve = "valve" }}
safe_timeout = 5.0
server = "devices"

[safety.heat]
device = "furnace"
property = "heat"
maximum = 500
interval = 0.1
timeout = 5.0
""")
    return load_configuration([tmp_path / "furnace.toml"]), gas


def test_a_device_that_needs_one_on_another_server_is_made_safe_when_the_testbed_ends(furnace_bench):
    configuration, gas = furnace_bench
    with Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        assert gas.exists()
    assert not gas.exists()


def test_a_device_that_needs_one_on_another_server_is_made_safe_by_a_trip(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError, match="heat is 1000"), Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        testbed.devices.valve.close(force=True)  # which leaves the gas on; after the trip nobody may open it
        assert gas.exists()
        testbed.devices.furnace.overheat()
        until(lambda: testbed.trip is not None)
        until(lambda: not gas.exists())
        assert testbed.devices.valve.state == "closed"
        assert testbed.status()["safety"]["not_safe"] == {}
        with pytest.raises(SafetyError):
            testbed.devices.valve.opened = True
    assert not gas.exists()


def test_a_device_is_made_safe_at_once_whoever_holds_the_device_that_it_needs_for_that(furnace_bench):
    configuration, gas = furnace_bench
    with Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        with testbed.devices.valve.lock():
            testbed.devices.furnace.make_safe()  # within 5 s; the valve's mutex would be waited for for 60 s
            assert not gas.exists()


def test_a_device_that_needs_one_on_another_server_is_made_safe_when_its_server_is_killed(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError), Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        manager = SharedMemoryManager(testbed.layout.device("furnace").server)
        manager.connect()
        testbed._servers.kill(manager.name)
        until(lambda: not gas.exists())
    assert not gas.exists()


def test_a_call_that_claims_to_make_safe_without_the_token_of_the_testbed_is_refused(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError, match="heat is 1000"), Testbed(configuration) as testbed:
        testbed.devices.furnace.overheat()
        until(lambda: testbed.trip is not None and not gas.exists())
        with calling(emergency_call()), pytest.raises(SafetyError):
            testbed.devices.valve.opened = True

        class Local(Device):
            def _open(self):
                return self

            def _make_safe(self):
                testbed.devices.valve.opened = True

        with pytest.raises(DeviceFaultError, match="is refused"), Local("local"):
            pass
        assert not gas.exists()


class Cabinet:
    """An object that has a lamp inside."""

    def __init__(self, file):
        self._lamp = make_lamp("inner lamp", file)

    def switch_on(self):
        self._lamp.switch_on()


def make_lamp(name, file):
    from lamp import Lamp

    return Lamp(name, file=file, open_on_use=True)


def make_open_lamp(name, file):
    lamp = make_lamp(name, file)
    lamp.open()
    return lamp


def make_lamp_once(name, file):
    Path(f"{file} was made").touch(exist_ok=False)
    return make_lamp(name, file)


def test_devices_that_programs_have_made_are_made_safe_or_named_when_their_server_is_killed(
    furnace_bench, until, tmp_path
):
    configuration, _ = furnace_bench
    burning = {name: tmp_path / name for name in ("lamp", "by value", "opened", "once", "inner lamp", "closed")}

    with pytest.raises(SafetyError) as raised, Testbed(configuration) as testbed:
        manager = SharedMemoryManager(testbed.layout.device("furnace").server)
        manager.connect()
        lamps = {
            "lamp": manager.get_object("a lamp", make_lamp, "lamp", burning["lamp"]),
            "by value": manager.get_object("another", lambda file: make_lamp("by value", file), burning["by value"]),
            "opened": manager.get_object("opened", make_open_lamp, "opened", burning["opened"]),
            "once": manager.get_object("once", make_lamp_once, "once", burning["once"]),
            "inner lamp": manager.get_object("cabinet", Cabinet, burning["inner lamp"]),
            "closed": manager.get_object("closed", make_lamp_once, "closed", burning["closed"]),
        }
        for lamp in lamps.values():
            lamp.switch_on()
        lamps["closed"].close(force=True)
        burning["closed"].touch()
        until(lambda: "closed" not in testbed.manager.get_dict(OTHER_DEVICES).copy().values())
        testbed._servers.kill(manager.name)

        def could_not_be_made_safe():
            doubts = testbed.status()["safety"]["not_safe"]
            return doubts if all("could not be made safe" in why for why in doubts.values()) else None

        not_safe = until(could_not_be_made_safe, timeout=60.0)
        assert set(not_safe) == {"once", "inner lamp"}
        assert [name for name, file in burning.items() if file.exists()] == ["once", "inner lamp", "closed"]
    assert "FileExistsError" in not_safe["once"]
    assert "only its server knew how it is made" in not_safe["inner lamp"]
    for why in not_safe.values():
        assert why in raised.value.__notes__


def lamp_bench(tmp_path, options):
    """Return the configuration of a testbed with a lamp and no checks, and the file that is there while it burns."""
    burning = tmp_path / "burning"
    (tmp_path / "lamp.toml").write_text(f"""
[testbed]
name = "bench"
plugins = ["{PLUGINS}"]
runs = "{tmp_path / "runs"}"

[devices.lamp]
driver = "lamp"
file = "{burning}"
{options}
""")
    return load_configuration([tmp_path / "lamp.toml"]), burning


def test_if_the_testbeds_server_is_killed_too_the_error_says_that_the_open_devices_are_unknown(tmp_path, until):
    configuration, burning = lamp_bench(tmp_path, "")
    with pytest.raises(SafetyError) as raised, Testbed(configuration) as testbed:
        testbed.devices.lamp.switch_on()
        for server in (testbed.layout.server, *testbed.layout.device_servers):
            testbed._servers.kill(server)
        until(lambda: testbed.trip is not None and not burning.exists(), timeout=60.0)
    assert any("that programs had made is not known" in note for note in raised.value.__notes__)


def test_if_a_driver_crashes_while_the_testbed_ends_its_devices_are_made_safe_and_an_error_says_so(tmp_path):
    configuration, burning = lamp_bench(tmp_path, "crashes = true")
    with (
        pytest.RaisesGroup(
            pytest.RaisesExc(CatkitDevicesError, match="is lost"),
            pytest.RaisesExc(CatkitDevicesError, match="devices' died"),
        ),
        Testbed(configuration) as testbed,
    ):
        testbed.devices.lamp.switch_on()
        assert burning.exists()
    assert not burning.exists()


def test_a_device_made_by_a_program_is_not_opened_if_it_cannot_be_recorded(tmp_path):
    with SharedMemoryManager("devices") as manager:
        manager.get_object(REGISTER, Register, "a testbed that has died", manager.name)
        lamp = manager.get_object("lamp", make_lamp, "lamp", tmp_path / "burning")
        for _ in range(2):
            with pytest.raises(DeviceOpenError, match="the testbed's server must record it first"):
                lamp.switch_on()
        assert lamp.state == "closed"
        assert not (tmp_path / "burning").exists()
