"""The conformance suite tries every operation of every component."""

from pathlib import Path

import pytest

from catkit_devices import Component, Components, Device, Measurement
from catkit_devices.testing import DriverConformance
from catkit_devices.testing.members import members
from catkit_devices.testing.rig import Rig
from catkit_devices.testing.telling_rules import describes_itself

PLUGINS = Path(__file__).parents[1] / "testbed" / "rack_plugins"


class TestRack(DriverConformance):
    driver = "test_rack"
    plugins = (PLUGINS,)
    arguments = {f"outputs[{number}].ramp": (2.0,) for number in (1, 2)}
    safe_state = {f"outputs[{number}].enabled": False for number in (1, 2)}
    examples = 5


@pytest.fixture
def rig():
    rig = Rig(TestRack()._case())
    yield rig
    rig.close()


def test_the_operations_of_every_component_are_tried(rig):
    with rig.opened() as device:
        tried = {str(member) for member in members(device, {}, TestRack.arguments)}

    assert tried == {
        *(f"{what} outputs[{number}].{name}" for what in ("reading", "setting") for number in (1, 2)
          for name in ("voltage", "enabled")),
        "outputs[1].ramp()",
        "outputs[2].ramp()",
        *(f"reading modules[{name!r}].sensors[{number}].value" for name in ("oven", "bath") for number in (1, 2)),
    }  # fmt: skip


class Level(Component):
    level = Measurement(lambda level: 1.0, doc="Level.")


class Careless(Device):
    """A driver that forgets to say the unit of what its components measure."""

    has_instrument = False
    tanks = Components(Level, numbers=(1, 2))

    def _open(self):
        return self


def test_a_component_that_breaks_a_rule_is_named():
    case = type("Careless", (DriverConformance,), {"driver": Careless, "__test__": False})()._case()
    rig = Rig(case)
    with rig.opened():
        problems = describes_itself(rig)
    rig.close()

    assert problems == [
        f"tanks[{number}].level has no unit (write 'dimensionless' if it has none)" for number in (1, 2)
    ]
