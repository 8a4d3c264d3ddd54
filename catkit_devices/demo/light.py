"""The light that both experiments use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.testbed import Experiment

__all__ = ["CLEAR", "LIGHT", "SPOT_HELD", "switch_on", "testbed_event"]

CLEAR = {"nd_wheel": 1, "colour_wheel": 4}
"""Each wheel's position with the most light: no density, and the band pass around the laser's 635 nm."""

LIGHT = (*CLEAR, "meter")
"""What one must have to say how much light there is."""

CURRENT = 60.0  # mA; well below the 68 mA that the 635 nm diode takes
SPOT_HELD = "spot held"
"""Name of the event that is set once the spot is where it belongs and somebody keeps it there."""

_SETTLING_TIME = 2.0  # s; what other programs for this laser wait after switching it


def switch_on(experiment: Experiment) -> None:
    """Have the laser on and the wheels clear when this returns; harmless when somebody else has seen to that."""
    with experiment.lock("laser", *LIGHT):
        laser = experiment.devices.laser
        if laser.enabled:
            return
        for wheel, position in CLEAR.items():
            experiment.devices[wheel].position = position
        laser.current = CURRENT
        laser.enabled = True
        time.sleep(_SETTLING_TIME)


def testbed_event(name: str) -> Any:
    """Return the event of that name, which all experiments of the testbed share."""
    from catkit_devices.multiprocessing import SharedMemoryManager

    manager = SharedMemoryManager()  # an experiment finds its testbed's
    manager.connect()
    return manager.get_event(name)
