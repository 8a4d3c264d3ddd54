"""PyMeasure's instrument classes as devices. Some by default, all of them with ``--foreign``."""

import hosted_pymeasure as hosted
import pytest

from catkit_devices.drivers import share
from catkit_devices.errors import DeviceValueError
from catkit_devices.simulation import Instrument, build_library

pytestmark = pytest.mark.filterwarnings("ignore")

SOME = (
    "Keithley2450", "SR830", "LakeShore224", "KeysightE36312A", "HP34401A", "AgilentB1500", "ThorlabsPM100USB",
    "HP11713A", "Keithley2182", "AdvantestR6245",
)  # fmt: skip
"""With channels, with those that a constructor adds, with messages of bytes, with properties that are dynamic."""
NOT_OPENED = {
    "Instrument", "FakeInstrument", "SwissArmyFake",  # no instruments
    "FWBell5080", "KeysightN5767A",  # fail with PyMeasure alone: they use an attribute that there is not
    # Their constructors ask several questions and need a different answer to each.
    "AWG401x_AFG", "Agilent34450A", "AMI430", "ANC300Controller", "TC038", "HP8116A", "Keithley2700", "SpellmanXRV",
    "IBeamSmart",
}  # fmt: skip
"""Classes that are not opened on a line that gives one answer to everything."""


@pytest.fixture(scope="module")
def found(request):
    classes, _problems = hosted.instrument_classes()
    everything = request.config.getoption("--foreign")
    return [cls for cls in classes if (everything or cls.__name__ in SOME) and cls.__name__ not in NOT_OPENED]


def test_pymeasures_classes_are_opened_described_and_closed_as_devices(found):
    failures = {}
    for cls in found:
        try:
            described = hosted.opened_on_a_script(cls)
        except Exception as error:
            failures[cls.__name__] = str(error)
        else:
            assert described["properties"] or described["commands"]
    assert len(found) >= len(SOME)
    assert failures == {}


def test_channels_of_pymeasure_are_components():
    from pymeasure.instruments.keysight import KeysightE36312A

    table = [(b"VOLT 2, (@1)", None), (b"VOLT? (@2)", b"3")]
    with hosted.expected_protocol(KeysightE36312A, table) as supply:
        supply.ch_1.voltage_setpoint = 2
        assert supply.channels[2].voltage_setpoint == 3.0


def dynamic_supply():
    """Make a class of PyMeasure's whose limits and choices change with the instrument."""
    from pymeasure.instruments import Instrument as Theirs
    from pymeasure.instruments.validators import strict_discrete_set, strict_range

    class Supply(Theirs):
        def __init__(self, adapter, name="supply", **options):
            super().__init__(adapter, name, includeSCPI=False, **options)

        voltage = Theirs.setting("V %g", "Set the voltage.", validator=strict_range, values=(0, 20), dynamic=True)
        range = Theirs.setting("R %g", "Set the range.", validator=strict_discrete_set, values=(1, 2), dynamic=True)

        def choose(self, highest):
            self.voltage_values, self.range_values = (0, highest), (1,)

    return Supply


def test_limits_and_choices_of_a_dynamic_property_are_those_of_the_instrument_now():
    table = {"pairs": [(b"V 15", None), (b"V 5", None)], "terminations": ("\r\n", "\r\n")}
    library = build_library([Instrument("GPIB0::5::INSTR", hosted.Table, table)], clock="virtual")
    device = share(dynamic_supply(), "GPIB0::5::INSTR", visa_library=library, safe="nothing")

    def present():
        properties = device.describe()["properties"]
        return properties["voltage"]["limits"], properties["range"]["choices"]

    assert present() == (None, None)  # a constructor may change them
    with device:
        assert present() == ((0.0, 20.0), [1, 2])
        device.voltage = 15
        device.choose(10)
        assert present() == ((0.0, 10.0), [1])
        with pytest.raises(DeviceValueError, match="voltage must be 0 to 10, got 15"):
            device.voltage = 15
        device.voltage = 5
    assert library.instrument("GPIB0::5::INSTR").problem is None
