"""A device that is made safe by another one, on the same server and on another."""

from pathlib import Path

import pytest

from catkit_devices.device import Device
from catkit_devices.errors import DeviceFaultError, SafetyError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.locks.owner import calling, emergency_call
from catkit_devices.testbed import Testbed, load_configuration


@pytest.fixture(params=["devices", "other"])
def furnace_bench(request, tmp_path, monkeypatch):
    """The file of a testbed with a furnace, and a valve on the same server or on another; the file of the gas."""
    plugins, gas = Path(__file__).parent / "bench_plugins", tmp_path / "gas"
    (tmp_path / "furnace.toml").write_text(f"""
[testbed]
name = "furnace"
plugins = ["{plugins}"]
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


def test_it_is_made_safe_when_the_testbed_ends(furnace_bench):
    configuration, gas = furnace_bench
    with Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        assert gas.exists()
    assert not gas.exists()


def test_it_is_made_safe_by_a_trip(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError), Testbed(configuration) as testbed:
        testbed.devices.furnace.overheat()
        until(lambda: testbed.trip is not None)
        until(lambda: not gas.exists())
        assert testbed.status()["safety"]["not_safe"] == {}
        with pytest.raises(SafetyError):
            testbed.devices.valve.opened = True
    assert not gas.exists()


def test_it_is_made_safe_at_once_whoever_holds_the_device_that_is_needed_for_it(furnace_bench):
    configuration, gas = furnace_bench
    with Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        with testbed.devices.valve.lock():
            testbed.devices.furnace.make_safe()  # within 5 s; the valve's mutex would be waited for for 60 s
            assert not gas.exists()


def test_it_is_made_safe_when_its_server_is_killed(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError), Testbed(configuration) as testbed:
        testbed.devices.furnace.burn()
        manager = SharedMemoryManager(testbed.layout.device("furnace").server)
        manager.connect()
        testbed._servers.kill(manager.name)
        until(lambda: not gas.exists())
    assert not gas.exists()


def test_who_claims_to_make_something_safe_without_the_testbeds_token_is_not_believed(furnace_bench, until):
    configuration, gas = furnace_bench
    with pytest.raises(SafetyError), Testbed(configuration) as testbed:
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


def make_valve(gas):
    from furnace import Valve

    return Valve("another", gas=gas, open_on_use=True)


def test_a_device_that_a_program_has_made_on_a_killed_server_is_named_as_not_safe(
    furnace_bench, until, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(Path(__file__).parent / "bench_plugins")
    configuration, _ = furnace_bench
    with pytest.raises(SafetyError) as raised, Testbed(configuration) as testbed:
        manager = SharedMemoryManager(testbed.layout.device("furnace").server)
        manager.connect()
        manager.get_object("another", make_valve, str(tmp_path / "other gas")).opened = True
        until(lambda: "another" in testbed._watch._renewal.others.get(manager.name, []))
        testbed._servers.kill(manager.name)
        until(lambda: any("'another', whose server" in one["text"] for one in testbed.status()["messages"]))
    assert any("'another', whose server is gone, is not known to be safe" in note for note in raised.value.__notes__)
