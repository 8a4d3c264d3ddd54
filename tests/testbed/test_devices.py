from collections.abc import Mapping

import pytest

from catkit_devices import multiprocessing
from catkit_devices.errors import ConfigurationError, DeviceOpenError
from catkit_devices.multiprocessing import Process
from catkit_devices.testbed import Devices, Testbed, load_configuration
from catkit_devices.testbed.caching import MutexedDict
from catkit_devices.testbed.configuration.layout_factory import lay_out
from catkit_devices.visa import VisaDevice

TWO_SERVERS = "devices.basin.server='other'"


class Thermostat:
    """An interface that no device of the bench has."""


def test_a_device_is_the_same_by_attribute_name_alias_and_enum(shared_testbed):
    devices = shared_testbed.devices

    assert devices.tank == devices["tank"] == devices.reservoir == devices["reservoir"] == devices[devices.names.tank]
    assert devices.tank != devices.basin
    assert [member.value for member in devices.names] == ["tank", "basin"]
    assert devices.names.reservoir is devices.names.tank


def test_the_devices_are_a_read_only_mapping(shared_testbed):
    devices = shared_testbed.devices

    assert isinstance(devices, Mapping)
    assert dict(devices.items()) == {"tank": devices.tank, "basin": devices.basin}
    assert list(devices.values()) == [devices.tank, devices.basin]
    assert list(devices.keys()) == ["tank", "basin"]
    assert (devices.get("reservoir"), devices.get("nothing")) == (devices.tank, None)
    with pytest.raises(TypeError):
        devices["tank"] = devices.basin


def test_a_device_is_found_by_what_it_can_do(bench):
    sticky = "devices.sticky={driver='test_sticky', close_seconds=0.0}"

    with Testbed(load_configuration([bench], [sticky])) as testbed:
        from catkit_devices.plugins.gauge import Sticky

        assert testbed.devices.one(Sticky) == testbed.devices.sticky
        assert testbed.devices.all(VisaDevice) == [testbed.devices.tank, testbed.devices.basin]
        assert testbed.devices.all(Thermostat) == []


@pytest.mark.parametrize(
    ("interface", "message"),
    [
        (VisaDevice, r"expected exactly one device that is a VisaDevice, found 2 \(tank, basin\)"),
        (Thermostat, r"expected exactly one device that is a Thermostat, found 0 \(none is\)"),
    ],
)
def test_the_only_device_of_a_kind_must_be_the_only_one(bench, interface, message):
    devices = Devices(lay_out(load_configuration([bench]), "nowhere", simulate=True))

    with pytest.raises(ConfigurationError, match=message):
        devices.one(interface)


def test_a_misspelt_device_is_an_error_with_the_nearest_name(bench):
    devices = Devices(lay_out(load_configuration([bench]), "nowhere", simulate=True))

    with pytest.raises(AttributeError, match=r"no device 'tnk', expected one of tank, reservoir, basin .*'tank'"):
        _ = devices.tnk
    with pytest.raises(ConfigurationError, match=r"no device 'bassin'.*did you mean 'basin'"):
        _ = devices["bassin"]


def test_devices_complete_in_an_editor(bench):
    devices = Devices(lay_out(load_configuration([bench]), "nowhere", simulate=True))

    assert {"tank", "reservoir", "basin"} <= set(dir(devices))
    assert (list(devices), len(devices), "reservoir" in devices, "x" in devices) == (["tank", "basin"], 2, True, False)


@pytest.mark.parametrize("server", ["", TWO_SERVERS])
def test_a_simulated_instrument_that_cannot_be_built_is_named_and_the_others_work(bench, tmp_path, server):
    (tmp_path / "other.yaml").write_text("spec: '1.1'\ndevices: {gauge: {}}\n")
    broken = f"devices.basin.simulator='{tmp_path}/other.yaml'"  # which does not take the options of the first one
    overrides = [broken, *([server] if server else [])]

    with Testbed(load_configuration([bench], overrides)) as testbed:
        assert isinstance(testbed.devices.tank.level, float)
        with pytest.raises(
            DeviceOpenError,
            match=r"device 'basin' .*option 'journal': .*other.yaml' at ASRL2::INSTR has no such option",
        ):
            _ = testbed.devices.basin.level
        assert isinstance(testbed.devices.tank.level, float)


def read_level(devices):
    return devices.tank.level


def test_devices_can_be_handed_to_another_process(shared_testbed):
    shared_testbed.devices.tank.level = 4

    process = Process(target=read_level, args=(shared_testbed.devices,))
    process.start()

    assert process.result == 4.0


def test_mutexed_dicts_are_found_where_the_original_design_has_them():
    assert MutexedDict is multiprocessing.MutexedDict
