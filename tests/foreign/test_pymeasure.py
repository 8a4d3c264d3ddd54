"""PyMeasure's instrument classes as devices. Some by default, all of them with ``--foreign``."""

import hosted_pymeasure as hosted
import pytest

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
