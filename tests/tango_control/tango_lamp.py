"""A device of PyTango, as others write them, served without a database: ``python tango_lamp.py FILE``."""

import sys
import time
from enum import IntEnum
from pathlib import Path

import tango
from tango.server import Device, attribute, command
from tango.test_context import DeviceTestContext


class Colour(IntEnum):
    RED = 0
    GREEN = 1


class Lamp(Device):
    """A lamp with everything that a Tango device may have."""

    def init_device(self):
        super().init_device()
        self._current, self._colour, self._pulses = 0.0, Colour.RED, 1
        self._writes = 0

    @attribute(dtype=float, unit="mA", min_value=0, max_value=100, label="Lamp current", doc="Current of the lamp.")
    def current(self):
        return self._current

    @current.write
    def current(self, value):
        self._writes += 1
        self._current = value

    @attribute(dtype=int)
    def writes(self):
        return self._writes

    @attribute(dtype=Colour)
    def colour(self):
        return self._colour

    @colour.write
    def colour(self, value):
        self._colour = Colour(value)

    @attribute(dtype=int, min_value=1, max_value=9)
    def pulses(self):
        return self._pulses

    @pulses.write
    def pulses(self, value):
        self._pulses = value

    @attribute(dtype=float)
    def broken(self):
        return float("nan"), time.time(), tango.AttrQuality.ATTR_INVALID

    @attribute(dtype=((float,),), max_dim_x=8, max_dim_y=8)
    def image(self):
        return [[1.0, 2.0, 3.0], [4.0, 5.0, self._current]]

    @command(dtype_in=float, doc_in="by how much", dtype_out=float)
    def Raise(self, by):
        self._current += by
        return self._current

    @command
    def Off(self):
        self._current = 0.0

    @command
    def Fail(self):
        raise ValueError("the filament is broken")

    @command(dtype_in=float)
    def Sleep(self, seconds):
        time.sleep(seconds)


if __name__ == "__main__":
    # A slow computer may take longer than the few seconds that the test context allows by itself.
    with DeviceTestContext(Lamp, host="127.0.0.1", device_name="lab/lamp/1", timeout=100) as proxy:
        told = Path(sys.argv[1])
        told.with_suffix(".new").write_text(f"tango://127.0.0.1:{proxy.get_dev_port()}/lab/lamp/1#dbase=no")
        told.with_suffix(".new").rename(told)
        sys.stdin.read()
