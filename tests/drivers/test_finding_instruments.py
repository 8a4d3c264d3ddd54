"""Instruments that are found by an expression for their address, and by their serial number, when they are opened."""

import pytest

from catkit_devices import Testbed, VisaDevice, load_configuration
from catkit_devices._wire.address import example, is_expression, matching, normalise
from catkit_devices.errors import ConfigurationError, DeviceOpenError
from catkit_devices.simulation import Instrument, build_library

FIRST = "USB0::0x1313::0x8078::P0001::INSTR"
SECOND = "USB0::0x1313::0x8078::P0002::INSTR"
OTHER = "USB0::0x0957::0x2007::MY1::INSTR"
SERIAL = "ASRL3::INSTR"
ANY_METER = "USB::0x1313::?*::INSTR"


class Meter(VisaDevice):
    identity = "^THORLABS,PM"
    io_timeout = 0.2


@pytest.fixture
def bench(script):
    """A VISA library with four instruments, of which one does not answer."""
    names = {FIRST: b"THORLABS,PM100D,P0001,1\n", SECOND: b"THORLABS,PM100D,P0002,1\n", OTHER: b"KEYSIGHT,2007,MY1,1\n"}
    instruments = [Instrument(address, script, {"replies": {b"*IDN?": name}}) for address, name in names.items()]
    return build_library([*instruments, Instrument(SERIAL, script, {"replies": {}})], clock="virtual")


def meter(bench, address, **options):
    return Meter("meter", address=address, visa_library=bench, late_window=0.1, **options)


@pytest.mark.parametrize(
    "expression",
    ["USB::0x1313::?*::P0001*::INSTR", "USB0::4883::32888::P000[1]::INSTR", "usb?*p0001?*", "?*P0001::?*INSTR|?*none"],
)
def test_an_instrument_is_found_by_an_expression_for_its_address(bench, expression):
    with meter(bench, expression) as device:
        assert device.query("*IDN?") == "THORLABS,PM100D,P0001,1"
        assert device.describe()["address"] == normalise(FIRST)


def test_it_is_looked_for_when_it_is_opened_and_not_before(bench):
    device = meter(bench, "USB::0x1313::?*::P0002*::INSTR")
    assert device.describe()["address"] == "USB::0x1313::?*::P0002*::INSTR"

    bench.disconnect(SECOND)
    with pytest.raises(DeviceOpenError, match=r"found no instrument to which 'USB::0x1313::\?\*::P0002\*::INSTR'"):
        device.open()
    bench.reconnect(SECOND)
    with device:
        assert device.is_open


def test_if_none_is_found_the_error_lists_what_there_is(bench):
    with pytest.raises(DeviceOpenError, match="applies; this VISA library finds .*0x8078::P0001.*ASRL3::INSTR"):
        meter(bench, "USB::0x9999::?*").open()


def test_if_several_are_found_the_error_lists_them(bench):
    with pytest.raises(DeviceOpenError, match=r"found 2 right instruments .*P0001::0::INSTR: the right kind; .*P0002"):
        meter(bench, ANY_METER).open()


def test_of_several_the_one_that_calls_itself_right_is_used(bench):
    with meter(bench, "USB?*::INSTR", serial_number="P0002") as device:
        assert device.query("*IDN?") == "THORLABS,PM100D,P0002,1"
    with pytest.raises(DeviceOpenError, match="found no right instruments .*an instrument with 'P0003' in"):
        meter(bench, ANY_METER, serial_number="P0003").open()


def test_the_one_that_is_in_use_is_not_taken_for_missing(bench):
    with meter(bench, FIRST), pytest.raises(DeviceOpenError, match="found no right instruments"):
        meter(bench, ANY_METER, serial_number="P0009").open()


def test_a_serial_number_is_checked_at_an_address_too(bench):
    with meter(bench, FIRST, serial_number="P0001"):
        pass
    with pytest.raises(DeviceOpenError, match="an instrument with 'P0002' in its identity was expected, found 'THORL"):
        meter(bench, FIRST, serial_number="P0002").open()


def test_a_serial_number_that_the_driver_does_not_check_is_an_error(bench):
    class Careless(Meter):
        def _identify(self):
            self._query("*IDN?")

    device = Careless("meter", address=FIRST, visa_library=bench, serial_number="P0002")
    with pytest.raises(DeviceOpenError, match="serial_number cannot be used: the driver does not ask"):
        device.open()


def test_a_serial_number_is_a_regular_expression(bench):
    with pytest.raises(ValueError, match=r"serial_number must be a regular expression, got '\('"):
        meter(bench, FIRST, serial_number="(")


@pytest.mark.parametrize(
    "expression",
    ["USB::0x1313::?*::P0001*::INSTR", "USB?*::INSTR", "TCPIP?*::INSTR", "GPIB?*", "ASRL[3-5]::INSTR", "ASRL?*",
     "USB?*|GPIB?*", "TCPIP0::192.0.2.?::inst0::INSTR"],
)  # fmt: skip
def test_there_is_an_address_for_a_simulated_instrument(expression):
    assert is_expression(expression)
    for number in (1, 2):
        address = example(expression, number)
        assert not is_expression(address)
        assert matching([address], expression) == [normalise(address)]


# --- in a configuration

CONFIGURATION = """
[testbed]
name = "bench"
simulate = true

[devices.left]
driver = "scpi"
address = "USB::0x1313::?*::P0001*::INSTR"
simulator = "scpi"
properties.level = { get = "LEV?" }

[devices.right]
driver = "scpi"
address = "USB0::0x1313::?*::P0002*::INSTR"
simulator = "scpi"
properties.level = { get = "LEV?" }
"""


def configured(tmp_path, text):
    file = tmp_path / "bench.toml"
    file.write_text(text)
    return load_configuration([str(file)])


def test_a_testbed_finds_its_instruments_also_when_they_are_simulated(tmp_path, runtime):
    with Testbed(configured(tmp_path, CONFIGURATION)) as bench:
        assert [bench.devices.left.level, bench.devices.right.level] == [0.0, 0.0]
        assert "P0001" in bench.devices.left.describe()["address"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "USB::0x1313::?*::P0001*::INSTR",
            "PXI?*::FRAME",
            "devices.left.address: no address for a simulated instrument can be made",
        ),
        ('driver = "scpi"\naddress = "USB::', 'driver = "omega"\naddress = "USB::', "devices.left.driver"),
        ('simulator = "scpi"\n', 'simulator = "scpi"\nserial_number = "("\n', None),
    ],
)
def test_expressions_in_a_configuration_are_checked(tmp_path, before, after, said):
    text = CONFIGURATION.replace(before, after, 1)
    if said is None:
        configured(tmp_path, text)
        return
    with pytest.raises(ConfigurationError, match=said):
        configured(tmp_path, text)
