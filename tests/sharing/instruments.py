"""Devices without hardware for the tests of the sharing layer: what they do is count, log and wait."""

import contextlib
import threading
import time

from catkit_devices.device import Device, operation, unlocked
from catkit_devices.errors import DeviceDisconnectedError


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


class Oven(Device):
    """Waits in its operations, is watched meanwhile, and notices a read and another body at the same time."""

    def __init__(self, name, *, uses=None, opening=0.0, **kwargs):
        super().__init__(name, **kwargs)
        self._uses = uses
        self._opening = opening
        self._running = 0
        self._overlaps = 0
        self._said = []
        self._lost = False
        self._opened = 0

    def _open(self):
        self._opened += 1
        self.wait(self._opening)
        return object()

    def _make_safe(self):
        self._said.append("safe")

    @contextlib.contextmanager
    def _runs(self, what):
        self._running += 1
        self._overlaps += self._running > 1
        self._said.append(what)
        try:
            yield
            time.sleep(0.001)
        finally:
            self._overlaps += self._running > 1
            self._running -= 1

    def settle(self, seconds, times=1):
        """Wait between two steps."""
        with self._runs("begin"):
            pass
        try:
            for _ in range(times):
                self.wait(seconds)
                with self._runs("step"):
                    pass
        finally:
            with self._runs("end"):
                pass

    def settle_both(self, seconds):
        """Have the other device wait, on whatever server it is; call back, and wait once more."""
        self._uses.settle(seconds)
        self._uses.call_back(self)
        with self._runs("both"):
            pass

    def call_back(self, other):
        self.wait(0.05)
        other.echo(1)

    def echo(self, value):
        with self._runs("echo"):
            return value

    @property
    @operation(shared=True)
    def temperature(self):
        if self._lost:
            raise DeviceDisconnectedError("the cable is out", **self._facts())
        with self._runs("read"):
            return 21.0

    @operation(shared=True)
    def look(self, seconds):
        """Take long over a read."""
        with self._runs("look"):
            time.sleep(seconds)

    @operation(shared=True)
    def look_patiently(self, seconds):
        """Wait in a read."""
        with self._runs("look patiently"):
            pass
        self.wait(seconds)

    @operation(shared=True)
    def look_at_the_other(self):
        return self._uses.echo(2)

    @unlocked
    def pull_the_cable(self, out):
        self._lost = out

    @property
    @unlocked
    def record(self):
        return {"said": list(self._said), "overlaps": self._overlaps, "opened": self._opened}
