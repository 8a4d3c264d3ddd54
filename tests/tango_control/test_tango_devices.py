"""Devices of a Tango server as devices of ours: driver ``tango``, on a server that PyTango's own test context runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catkit_devices.drivers import create_device
from catkit_devices.errors import (
    ConfigurationError,
    DeviceDisconnectedError,
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager

LAMP = Path(__file__).parent / "tango_lamp.py"


class Served:
    """The server of the lamp, as a process of its own."""

    def __init__(self, directory):
        self._file = directory / "address"
        self._process = None

    def start(self):
        from conftest import until

        command = [sys.executable, str(LAMP), str(self._file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        until(self._file.exists, 120)
        return self._file.read_text()

    def stop(self):
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("lamp"))
    yield served.start()
    served.stop()


def make_lamp(address, **options):
    return create_device("tango", "lamp", {"address": address, "safe": {"current": 0.0}, **options})


@pytest.fixture
def lamp(address):
    with make_lamp(address, limits={"current": [0, 50]}, io_timeout=30.0) as device:
        yield device


def test_attributes_have_the_type_unit_limits_and_text_that_the_tango_server_tells(address):
    with make_lamp(address) as lamp:
        told = lamp.describe()["properties"]
    assert (told["current"]["unit"], told["current"]["limits"], told["current"]["type"]) == ("mA", (0, 100), "float")
    assert told["current"]["doc"] == "Lamp current. Current of the lamp."
    assert (told["pulses"]["type"], told["pulses"]["limits"]) == ("int", (1, 9))
    assert told["colour"]["choices"] == ["RED", "GREEN"]
    assert not told["writes"]["writable"]


def test_attributes_are_set_and_read_with_units(lamp):
    lamp.current = "20 mA"
    assert lamp.current == 20.0
    lamp.colour = "GREEN"
    assert lamp.colour == "GREEN"
    assert np.array_equal(lamp.image, [[1, 2, 3], [4, 5, 20]])
    assert lamp.State == "UNKNOWN"


def test_a_value_beyond_the_limits_of_the_server_or_of_the_configuration_is_not_sent(lamp):
    before = lamp.writes
    with pytest.raises(DeviceValueError, match="current must be 0 to 50 mA, got 60.0 mA"):
        lamp.current = 60
    with pytest.raises(DeviceValueError, match="pulses must be 1 to 9"):
        lamp.pulses = 10
    assert lamp.writes == before


def test_an_attribute_without_a_valid_value_is_an_error_and_no_number(lamp):
    with pytest.raises(DeviceProtocolError, match="broken: the Tango server says that it has no valid value now"):
        _ = lamp.broken


def test_commands_are_methods_and_their_errors_tell_the_device_and_the_command(lamp):
    lamp.current = 1
    assert lamp.Raise(2.5) == 3.5
    with pytest.raises(DeviceError, match=r"lamp.*tango://.*: Fail: ValueError: the filament is broken"):
        lamp.Fail()


def test_it_is_made_safe_as_its_configuration_says(lamp):
    lamp.current = 7
    lamp.make_safe()
    assert lamp.current == 0.0


def switch_on_and_be_killed(manager):
    manager.connect()
    lamp = manager.get_object("lamp")
    with lamp.lock():
        lamp.current = 30
        manager.get_event("on").set()
        manager.get_event("never").wait()


def test_a_killed_client_that_held_it_leaves_it_safe(address, runtime):
    with SharedMemoryManager("far") as manager:
        lamp = manager.get_object("lamp", make_lamp, address, io_timeout=30.0, open_on_use=True)
        process = Process(target=switch_on_and_be_killed, args=(SharedMemoryManager("far"),))
        process.start()
        assert manager.get_event("on").wait(60)
        assert lamp.mutex.holder is not None
        process.kill()
        with lamp.lock():
            assert lamp.current == 0.0


def test_no_answer_in_time_and_a_lost_connection_are_told_apart(tmp_path):
    served = Served(tmp_path)
    address = served.start()
    with make_lamp(address, io_timeout=1.0, safe="nothing") as lamp:
        with pytest.raises(DeviceTimeoutError, match="Sleep: .*Timeout"):
            lamp.Sleep(1.5)
        served.stop()
        with pytest.raises(DeviceDisconnectedError):
            lamp.current = 3
        with pytest.raises(DeviceOpenError, match="the Tango server does not answer"):
            _ = lamp.current


@pytest.mark.parametrize("address", ["lamp", "tango://host/a/b/c", "tango://host:10000/a/b"])
def test_a_wrong_address_is_refused_before_anything_is_opened(address):
    with pytest.raises(
        ConfigurationError, match="expected an address such as 'tango://host:10000/domain/family/member'"
    ):
        create_device("tango", "lamp", {"address": address})
