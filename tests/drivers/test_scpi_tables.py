"""Drivers that consist of the tables of a configuration, and the simulated instruments that are made from the same."""

import tomllib

import numpy as np
import pytest

from catkit_devices import load_configuration
from catkit_devices.drivers import create_device
from catkit_devices.errors import ConfigurationError, DeviceProtocolError, DeviceValueError
from catkit_devices.simulation import Instrument, build_library
from catkit_devices.testing import DriverConformance

SOCKET = "TCPIP0::10.0.0.7::5025::SOCKET"

SOURCE = """
identity = "^ACME,S1"
safe = { enabled = false, voltage = 0 }

[properties.range]
get = "RANG?"
set = "RANG {}"
unit = "V"
choices = [3, 30]
doc = "Range of the output."

[properties.voltage]
get = "VOLT?"
set = "VOLT {:.3f}"
unit = "V"
limits = [0, "range"]
settles_within = 5
doc = "Voltage of the output."

[properties.enabled]
get = "OUTP?"
set = "OUTP {}"
type = "bool"
doc = "Output: on or off."

[properties.mode]
get = "FUNC?"
set = "FUNC {}"
choices = { voltage = "VOLT", current = "CURR" }
doc = "What is held constant."

[properties.temperature]
get = "TEMP? {key}"
arguments = { case = 1, regulator = 2 }
unit = "degC"
shared = true
doc = "Temperature in the instrument."

[properties.trace]
get = "TRAC?"
type = "array"
dtype = ">i2"
shape = 3
unit = "V"
doc = "Last readings."

[commands.clear]
write = "LOG:CLE"
doc = "Clear the log."

[commands.tune]
write = "TUNE"
completes_within = 10
doc = "Tune the regulator."
"""

OPTIONS = tomllib.loads(SOURCE)


@pytest.fixture
def source():
    library = build_library([Instrument(SOCKET, "scpi", {}, driver_options=OPTIONS)], clock="virtual")
    device = create_device("scpi", "source", {"address": SOCKET, **OPTIONS}, visa_library=library)
    with device:
        yield device, library.instrument(SOCKET)


def test_an_instrument_is_used_as_its_tables_say(source):
    device, simulator = source
    device.voltage = "1500 mV"
    device.mode = "current"
    device.enabled = True
    device.clear()
    device.tune()

    assert (simulator.value("voltage"), simulator.value("mode"), simulator.value("enabled")) == ("1.500", "CURR", "1")
    assert (device.voltage, device.mode, device.enabled) == (1.5, "current", True)
    assert dict(device.temperature) == {"case": 0.0, "regulator": 0.0}
    np.testing.assert_array_equal(device.trace, [0, 0, 0])


def test_limits_of_a_table_may_be_another_property(source):
    device, _simulator = source
    device.range = 3

    with pytest.raises(DeviceValueError, match="voltage must be 0 to 3 V, got 4.0 V"):
        device.voltage = 4


def test_a_safe_state_is_set_when_the_device_is_made_safe(source):
    device, simulator = source
    device.voltage, device.enabled = 2, True
    device.make_safe()

    assert (simulator.value("voltage"), simulator.value("enabled")) == ("0.000", "0")


def test_a_simulated_instrument_refuses_what_its_tables_do_not_allow(source):
    device, _simulator = source

    with pytest.raises(DeviceProtocolError, match='refused: -222,"Data out of range"'):
        device.write("VOLT 40")
    with pytest.raises(DeviceProtocolError, match='refused: -113,"Undefined header"'):
        device.write("VOLTS 1")
    with pytest.raises(DeviceProtocolError, match='refused: -104,"Data type error"'):
        device.write("VOLT much")


def test_a_simulated_instrument_says_that_it_proves_nothing_of_the_real_one(source, caplog):
    assert source[0].query("*IDN?") == "ACME,S1,simulated from its configuration,0,0"

    build_library([Instrument(SOCKET, "scpi", {}, driver_options=OPTIONS)])
    assert "no proof that the real instrument understands these commands" in caplog.text


def test_two_devices_at_one_address_have_one_simulated_instrument():
    properties = OPTIONS["properties"]
    of_second = {
        "voltage": properties["voltage"] | {"get": "VOLT2?", "set": "VOLT2 {}"},
        "range": {"get": "RANG2?", "set": "RANG2 {}"},
        "enabled": properties["enabled"],
    }
    second = OPTIONS | {"properties": of_second}
    tables = {"one": OPTIONS, "two": second}
    library = build_library([Instrument(SOCKET, "scpi", {}, driver_options=tables[name]) for name in tables])
    one, two = (
        create_device("scpi", name, {"address": SOCKET, **tables[name]}, visa_library=library) for name in tables
    )

    with one, two:
        one.range, two.range = 30, 5
        one.voltage, two.voltage, two.enabled = 20, 3, True
        assert (one.voltage, two.voltage, one.enabled) == (20.0, 3.0, True)
        with pytest.raises(DeviceProtocolError, match="Data out of range"):
            two.write("VOLT2 6")


def test_a_device_that_a_test_adds_at_an_address_has_its_own_table_there(simulated_device):
    properties = {"power": {"get": "POW?", "set": "POW {}", "unit": "W", "doc": "Power."}}
    second = {"identity": OPTIONS["identity"], "safe": {"power": 0}, "properties": properties}
    one = simulated_device("scpi", address=SOCKET, **OPTIONS)
    two = simulated_device("scpi", address=SOCKET, **second)

    one.voltage, two.power = 2, 7
    assert (one.voltage, two.power) == (2.0, 7.0)
    with pytest.raises(ConfigurationError, match="must have the same read_termination"):
        simulated_device("scpi", address=SOCKET, **second | {"read_termination": "\r\n"})


def test_two_devices_at_one_address_must_agree_on_the_line():
    tables = [OPTIONS, OPTIONS | {"read_termination": "\r\n"}]
    with pytest.raises(
        ConfigurationError, match=r"at one address must have the same read_termination, got '\\n', '\\r"
    ):
        build_library([Instrument(SOCKET, "scpi", {}, driver_options=one) for one in tables])


def test_values_and_identity_of_a_simulated_instrument_can_be_given():
    given = {"idn": "ACME,S1,7,2.0", "values": {"voltage": 2.5, "temperature": {"case": 31}}}
    library = build_library([Instrument(SOCKET, "scpi", given, driver_options=OPTIONS)])

    with create_device("scpi", "source", {"address": SOCKET, **OPTIONS}, visa_library=library) as device:
        assert (device.voltage, device.temperature["case"]) == (2.5, 31.0)
        assert device.query("*IDN?") == "ACME,S1,7,2.0"


# --- checked like a driver


def configured(tmp_path, text):
    """Write a configuration with one device, and load it."""
    lines = ["[testbed]", 'name = "bench"', "simulate = true", "[devices.source]", 'driver = "scpi"']
    lines += [f'address = "{SOCKET}"', 'simulator = "scpi"', *text.replace("[", "[devices.source.").splitlines()]
    file = tmp_path / "bench.toml"
    file.write_text("\n".join(line.replace("= [devices.source.", "= [") for line in lines))
    return load_configuration([str(file)])


def test_a_configuration_with_such_tables_is_accepted(tmp_path):
    configured(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('unit = "V"\nlimits', 'unit = "Volts per"\nlimits', r"devices.source.properties.voltage.*Volts per"),
        ('get = "RANG?"', 'gte = "RANG?"', r"devices.source.properties.range.gte.*no such key.*mean 'get'\?"),
        ('type = "bool"', 'type = "boolean"', "properties.enabled.*type must be one of float, int, bool, str, array"),
        ("VOLT {:.3f}", "VOLT", r"properties.voltage.*has no \{\} for the value"),
        ('limits = [0, "range"]', 'limits = [0, "rang"]', r"voltage depend on 'rang'.*did you mean 'range'\?"),
        ("enabled = false,", "enable = false,", r"source.safe.enable: .*did you mean 'enabled'\?"),
        ("enabled = false,", 'enabled = "maybe",', "source.safe.enabled: must be true or false, got 'maybe'"),
        ("voltage = 0 }", "temperature = 0 }", "source.safe.temperature: expected a property that can be set"),
        ("safe = { enabled = false, voltage = 0 }", 'safe = "off"', 'source.safe: expected .*or "nothing"'),
        ('write = "LOG:CLE"', "", "source.commands.clear: needs write ="),
        (
            'write = "LOG:CLE"',
            'write = "LOG:CLE {}"',
            r"commands.clear: .*sent as it is, got 'LOG:CLE \{\}'",
        ),
        ('write = "LOG:CLE"', 'write = "*TST?"', r"source.commands.clear: nobody would read the reply to '\*TST\?'"),
        (
            'get = "OUTP?"',
            'get = "OUTP?\\nVOLT?"',
            "enabled: a command is one line, without control characters",
        ),
        ('current = "CURR" }', 'current = "volt" }', "'voltage' and 'current' are both 'volt' on the wire"),
        ("[commands.clear]", "[commands.voltage]", "source.commands.voltage: there is a property of this name"),
        ('dtype = ">i2"', 'dtype = "i2"', "source.properties.trace: .*needs a byte order"),
        ("[properties.mode]", "[properties.query]", "query belongs to VisaDevice"),
        ('identity = "^ACME,S1"', 'identity = "^ACME,S1"\nstrict = 7', "strict must be a bool, got 7"),
        ('identity = "^ACME,S1"', 'identity = "^ACME,S1"\nlimits = { voltage = [0, 5] }', None),
        ('identity = "^ACME,S1"', 'identity = "^ACME,S1"\nlimits = { volts = [0, 5] }', "no such property.*voltage"),
    ],
)
def test_mistakes_in_the_tables_are_found_before_anything_is_opened(tmp_path, before, after, said):
    assert before in SOURCE
    if said is None:
        configured(tmp_path, SOURCE.replace(before, after, 1))
        return
    with pytest.raises(ConfigurationError, match=rf"(?s){said}"):
        configured(tmp_path, SOURCE.replace(before, after, 1))


def test_without_properties_it_is_said_that_they_are_missing(tmp_path):
    with pytest.raises(ConfigurationError, match=r"devices.source.properties: is missing, driver 'scpi' needs it"):
        configured(tmp_path, "")


def test_a_safety_check_may_read_a_shared_property_of_a_table(tmp_path):
    check = """
[[safety.hot]]
device = "source"
property = "temperature['case']"
maximum = "60 degC"
interval = 1
"""
    file = tmp_path / "check.toml"
    file.write_text(check.replace("[[", "[").replace("]]", "]"))
    configured(tmp_path, SOURCE)
    configuration = load_configuration([str(tmp_path / "bench.toml"), str(file)])

    assert configuration.safety["hot"].property == "temperature['case']"


class TestTheDriverConforms(DriverConformance):
    driver = "scpi"
    options = OPTIONS
    safe_state = {"enabled": False, "voltage": 0.0}
