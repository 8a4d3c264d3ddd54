"""Devices without hardware for the tests of the sharing layer: what they do is count, log and wait."""

import threading
import time

from catkit_devices.device import Device, operation, unlocked


class Instrument(Device):
    """Records every wire exchange and every making safe, and notices two bodies at once."""

    def __init__(self, name, *, uses=None, **kwargs):
        super().__init__(name, **kwargs)
        self._value = 0
        self._on = False
        self._wire = []
        self._safe_at = []
        self._inside = 0
        self._overlaps = 0
        self._watch = threading.Lock()
        self._uses = uses

    def _open(self):
        return object()

    def _make_safe(self):
        self._on = False
        self._safe_at.append(time.monotonic())
        self._wire.append("safe")

    def _exchange(self, what):
        self._checkpoint()
        with self._watch:
            self._inside += 1
            self._overlaps += self._inside > 1
        time.sleep(0)
        with self._watch:
            self._inside -= 1
        self._wire.append(what)

    @property
    def value(self):
        self._exchange("value?")
        return self._value

    @value.setter
    def value(self, value):
        self._exchange(f"value={value}")
        self._value = value

    @property
    def on(self):
        return self._on

    @on.setter
    def on(self, value):
        self._exchange(f"on={value}")
        self._on = value

    @property
    @operation(shared=True)
    def temperature(self):
        self._exchange("temperature?")
        return 21.0

    @property
    @unlocked
    def record(self):
        return {"wire": list(self._wire), "overlaps": self._overlaps, "safe": len(self._safe_at), "on": self._on}

    def null(self):
        return None

    def echo(self, value):
        return value

    def nap(self, seconds):
        """Wait, and be cancelled when the caller goes."""
        self.wait(seconds)
        return "rested"

    def work(self, seconds):
        """Be busy in code that cannot be interrupted, then exchange once more."""
        time.sleep(seconds)
        self._exchange("worked")
        return "worked"

    def burn(self, seconds):
        """Be busy in code that hears of nothing, and switch on at the end of it."""
        time.sleep(seconds)
        self._on = True
        self._wire.append("burnt")

    @operation(shared=True)
    def look(self, seconds):
        """Take long over a read that needs no mutex."""
        time.sleep(seconds)
        return self._value

    def read_slowly(self):
        return self._value

    def steps(self, count, pause):
        """Several exchanges with pauses between."""
        for step in range(count):
            time.sleep(pause)
            self._exchange(f"step {step}")

    def through(self):
        """Use the other device, on whatever server it is."""
        self._uses.value = self._uses.value + 1
        return self._uses.mutex.holder.owner if self._uses.mutex.holder else None

    def through_and_back(self, back):
        return back.echo(self._uses.echo("there and back"))

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
