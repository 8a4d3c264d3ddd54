"""Stand-ins for the camera, and classes that cannot be one."""

import os
from pathlib import Path

from catkit_devices.plugins.sdk_plugin import Camera


class FakeCamera:
    """What the vendor's does, without a camera."""

    def __init__(self, clock, gain=3):
        self.gain = gain
        self._ready_at = clock.time() + 3600.0
        self._clock = clock

    def set_gain(self, value):
        self.gain = value
        self._note(f"gain {value}")

    def is_ready(self):
        return self._clock.time() >= self._ready_at

    def close(self):
        self._note("closed")

    def _note(self, text):
        with Path(os.environ["FAKE_CAMERA"]).open("a") as file:
            file.write(text + "\n")


class SimulatedCamera(Camera):
    """The driver, with an _open() of its own."""

    def __init__(self, name, *, serial, clock, gain=3, **options):
        super().__init__(name, serial=serial, **options)
        self._fake = FakeCamera(clock, gain)

    def _open(self):
        return self._fake


class OpensTheRealOne(Camera):
    """Changes nothing."""


NO_CLASS = 3
