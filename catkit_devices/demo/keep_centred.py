"""A control loop that keeps the spot in the centre of the camera."""

from __future__ import annotations

import itertools
import math
import time
from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices.demo.light import LIGHT, SPOT_HELD, switch_on, testbed_event
from catkit_devices.demo.spot import find_spot
from catkit_devices.errors import CatkitDevicesError
from catkit_devices.testbed import Experiment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from catkit_devices.demo.spot import FoundSpot

__all__ = ["KeepCentred"]


class KeepCentred(Experiment):
    """Keeps the spot in the centre of the camera's frames with the tip/tilt stage, while it drifts.

    First it measures by how much the spot moves when the stage moves. Then it is an integrating controller: each step
    moves the stage so that a part of the offset goes away. For several steps at a time it holds the locks of the
    wheels, the power meter, the camera and the stage, so that the frame, the power and the move of a step belong
    together. After a frame with too little light, for example because a filter is in the beam, the stage is not moved.

    Records for each step, at the time of its frame: ``offset_x`` and ``offset_y`` (pixels from the centre),
    ``without_x`` and ``without_y`` (the offset that the spot would have if the stage had never moved),
    ``coupled_power`` (W) and ``light`` (counts). Every tenth time it records the ``frame``. ``response`` is by how many
    pixels the spot moves for each microradian.

    Sets the event :data:`SPOT_HELD` of the testbed when the spot is within ``tolerance`` for the first time. It runs
    until the other experiments that were started with it have ended.

    Returns:
        ``steps``, ``skipped`` (frames with too little light) and ``response`` (pixels per microradian).
    """

    daemon: ClassVar[bool] = True

    gain: float = 0.7
    """Part of the offset that one step takes away."""
    steps_at_a_time: int = 4
    """Number of steps before it releases the locks, so that other experiments can use the light."""
    interval: float = 0.05
    """Seconds until it acquires the locks again."""
    tolerance: float = 1.0
    """Distance from the centre, in pixels, within which the spot counts as held."""
    exposure_time: float = 0.01
    """Seconds for each frame."""
    settling_time: float = 0.03
    """Seconds that the stage needs to settle after a move."""
    poke: float = 50.0
    """How far the stage moves to measure the response of the spot, in microradians."""
    minimum_light: float = 0.2
    """Light below which a frame is skipped, as a part of the light in the first frame."""

    def pre_experiment(self) -> None:
        """Switch the light on, and measure by how much the spot moves when the stage moves."""
        import numpy as np

        switch_on(self)
        with self._everything():
            self.devices.camera.exposure_time = self.exposure_time
            first = self._look()
            self._enough = self.minimum_light * first.light
            if not first.light:
                raise CatkitDevicesError("the camera sees no light although the laser is on and the wheels are clear")
            stage = self.devices.tiptilt
            self._start = self._target = np.array([stage.tip, stage.tilt])
            self._response = np.column_stack([self._learn(axis) for axis in np.eye(2)])
            self._move(self._start)
        self.log_array("response", self._response, "pixel/urad")
        self.logger.info("the spot moves by %s pixels per microradian of the stage", self._response.tolist())

    def _learn(self, axis: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return by how many pixels the spot moves for one microradian along an axis."""
        import numpy as np

        change = np.zeros(2)
        for sign in (+1.0, -1.0, -1.0, +1.0):  # in this order a steady drift cancels out
            self._move(self._start + sign * self.poke * axis)
            spot = self._look()
            change += sign * np.array([spot.x, spot.y])
        return change / (4 * self.poke)

    def experiment(self) -> dict[str, Any]:
        """Hold the spot until the experiment is told to finish."""
        import numpy as np

        held = testbed_event(SPOT_HELD)
        inverse = np.linalg.inv(self._response)
        steps = skipped = 0
        for turn in self.track(itertools.count(), "turns of the loop"):
            with self._everything():
                for number in range(self.steps_at_a_time):
                    at = time.time()
                    spot = self._look(keep=turn % 10 == number == 0)
                    if spot.light < self._enough:
                        skipped += 1
                        break
                    power = self.devices.meter.power
                    self._record(at, spot, power)
                    steps += 1
                    self._move(self._target - self.gain * (inverse @ (spot.x, spot.y)))
            if math.hypot(spot.x, spot.y) < self.tolerance:
                held.set()
            time.sleep(self.interval)
        return {"steps": steps, "skipped": skipped, "response": self._response.tolist()}

    def _record(self, at: float, spot: FoundSpot, power: float) -> None:
        moved = self._response @ (self._target - self._start)
        for tag, value, unit in (
            ("offset_x", spot.x, "pixel"),
            ("offset_y", spot.y, "pixel"),
            ("without_x", spot.x - float(moved[0]), "pixel"),
            ("without_y", spot.y - float(moved[1]), "pixel"),
            ("coupled_power", power, "W"),
            ("light", spot.light, "count"),
        ):
            self.run.log_scalar(tag, value, unit, at=at)

    def _everything(self) -> Any:
        return self.lock(*LIGHT, "camera", "tiptilt")

    def _look(self, *, keep: bool = False) -> FoundSpot:
        frame = self.devices.camera.frame()
        if keep:
            self.log_array("frame", frame, "count")
        return find_spot(frame)

    def _move(self, target: npt.NDArray[np.float64]) -> None:
        self.devices.tiptilt.move(float(target[0]), float(target[1]))
        self._target = target
        time.sleep(self.settling_time)
