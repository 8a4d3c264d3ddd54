"""The light that both experiments use: how it is switched on, and which devices it needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catkit_devices.testbed import Experiment

__all__ = ["CLEAR", "LIGHT", "SPOT_HELD", "switch_on", "testbed_event"]

CLEAR = {"nd_wheel": 1, "colour_wheel": 4}
"""Each wheel's position with the most light: no density, and the band pass around the laser's 635 nm."""

LIGHT = (*CLEAR, "meter")
"""The devices that must be locked to measure the light: the wheels and the power meter."""

CURRENT = 60.0  # mA; well below the 68 mA that the 635 nm diode can take
SPOT_HELD = "spot held"
"""Name of the event that is set when the spot is in the centre and an experiment keeps it there."""

_SETTLING_TIME = 2.0  # s; other programs for this laser wait as long after switching it


def switch_on(experiment: Experiment) -> None:
    """Set the wheels to their clear positions and switch the laser on, unless it is on already."""
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
    """Return the event ``name``, which all experiments of the testbed share."""
    from catkit_devices.multiprocessing import SharedMemoryManager

    manager = SharedMemoryManager()  # in an experiment, this is the server of its testbed
    manager.connect()
    return manager.get_event(name)
