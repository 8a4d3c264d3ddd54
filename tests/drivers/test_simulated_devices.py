"""The fixture ``simulated_device`` opens no real instrument either."""

import pytest

from catkit_devices import Device
from catkit_devices.errors import ConfigurationError, DeviceOpenError


class Opens(Device):
    """Would open the real instrument."""

    def _open(self):
        raise DeviceOpenError("this was the real one", **self._facts())

    def _make_safe(self):
        self._connection.switch_off()

    def level(self):
        """Return what the instrument says."""
        return self._connection.level


class StandIn:
    def __init__(self, level=7):
        self.level = level

    def switch_off(self):
        self.level = 0


def test_simulated_device_opens_no_real_instrument(simulated_device):
    with pytest.raises(ConfigurationError, match="driver 'Opens' does not use VISA"):
        simulated_device(Opens)
    assert simulated_device(Opens, stand_in=StandIn, simulator_options={"level": 4}).level() == 4


def test_a_device_may_look_for_its_simulated_instrument(simulated_device, simulated_instrument):
    expression = "USB::0x1313::?*::P0001*::INSTR"
    one = simulated_device("thorlabs_pm100d", address=expression)
    other = simulated_device("thorlabs_pm100d", address=expression)
    one.averaging = 7

    assert other.averaging == 7
    assert simulated_instrument(one) is simulated_instrument(other)
