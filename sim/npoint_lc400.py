"""A simulated nPoint LC400 piezo controller with a tip/tilt stage.

Sources: the manufacturer's text quoted in a public MATLAB ``Npoint`` class; github cnanders/matlab-npoint
``src/+npoint/LC400.m``; github epics-motor/motorNPoint ``nPointApp/src/LC400MotorDriver.cpp``; github
spacetelescope/catkit ``catkit/hardware/npoint/nPointTipTiltController.py``.

Binary frames of 32-bit little-endian words, without echo or prompt, each ending with 0x55:

* read one word: ``A0 address 55``; reply ``A0 address data 55``;
* write one word: ``A2 address data 55``; no reply;
* write the next word (4 bytes after the last address that was written or read): ``A3 data 55``; no reply;
* read a block: ``A4 address n 55``; reply ``A4 address n*data 55``.

Registers of channel ``c`` are at ``0x11830000 + 0x1000*c``: 0x044 range unit (2: µrad), 0x078 full range, 0x084 servo
(1 closed), 0x218 position command (20-bit signed counts, +-524287 is the full range), 0x230 inverse scale, 0x334
sensor reading (counts), 0x720/0x728/0x730 P, I and D gain (64-bit floats, low word first). ``0x11830028`` holds the
firmware's name in five words. The words of the wavetable registers and memories are stored, but no wavetable moves the
stage here.

Assumed: after a bad frame, bytes are skipped until a frame is valid; there is no answer for addresses outside of the
memories that these sources name; the default gains; with P = I = 0 a closed loop does not move.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim.models import PiezoAxis

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["LC400"]

_READ, _WRITE, _WRITE_NEXT, _READ_BLOCK, _END = 0xA0, 0xA2, 0xA3, 0xA4, 0x55
"""Bytes that begin a command, and the one that ends every frame."""
_LENGTHS = {_READ: 6, _WRITE: 10, _WRITE_NEXT: 6, _READ_BLOCK: 10}
"""Bytes of a frame, by its command."""

_GLOBAL = 0x11830000
"""Address of the registers of the controller."""
_FIRMWARE = _GLOBAL + 0x28
"""Address of the firmware's name, five words of text."""
_CHANNELS = {1: 0x11831000, 2: 0x11832000}
"""Addresses of the registers of each channel."""
_RANGE_UNIT, _RANGE, _SERVO, _COMMAND, _INVERSE_SCALE, _SENSOR = 0x044, 0x078, 0x084, 0x218, 0x230, 0x334
"""Offsets of the registers of a channel."""
_GAINS = {0x720: 0.0, 0x728: 100.0, 0x730: 0.0}
"""Offsets of the registers of the gains of P, I and D, and their values at the start."""
_POSITION_GAINS = (0x720, 0x728)
"""Offsets of the gains without which the stage does not move: P and I."""
_MOVERS = {_SERVO, _COMMAND, *(offset + word for offset in _GAINS for word in (0, 4))}
"""Registers that move the stage when they are written."""
_MICRORADIANS = 2
"""Value of the register of the range's unit: microradians."""
_FULL_SCALE = 1048574  # counts from end to end

#: Addresses that exist: global and channel registers, wavetables, recording buffers.
_MEMORIES = (range(_GLOBAL, _GLOBAL + 0x4000), range(0xC0000000, 0xC01F8000), range(0xC03F0000, 0xC0690000))


class LC400:
    """The simulator ``npoint_lc400``.

    Args:
        bench: the simulated bench that it is part of; if it has an ``axis(number)``, those are the axes that move.
        read_reply: first byte of the reply to reading one word: 0xA0, or 0xA4 as one driver expects.

    Attributes:
        axes: their true positions, by channel.
    """

    def __init__(self, bench: Bench, *, read_reply: int = _READ) -> None:
        if read_reply not in {_READ, _READ_BLOCK}:
            raise ConfigurationError(f"read_reply must be 0xA0 or 0xA4, got {read_reply!r}")
        axis = getattr(bench, "axis", None)
        self.axes: dict[int, PiezoAxis] = {
            number: PiezoAxis(bench.clock) if axis is None else axis(number) for number in _CHANNELS
        }
        self._noise = getattr(bench, "noise", 1.0)
        self._rng = bench.rng("LC400 sensors")
        self._read_reply = read_reply
        self._received = bytearray()
        self._place = _GLOBAL
        self._words: dict[int, int] = {}
        for number, word in enumerate(struct.unpack("<5I", b"LC403-SIM fw 1.0\0\0\0\0")):
            self._words[_FIRMWARE + 4 * number] = word
        for channel, base in _CHANNELS.items():
            full_range = self.axes[channel].full_range
            self._words[base + _RANGE_UNIT] = _MICRORADIANS
            self._words[base + _RANGE] = round(full_range)
            self._words[base + _SERVO] = 1
            self._words[base + _INVERSE_SCALE] = _unsigned(struct.pack("<f", full_range / _FULL_SCALE))
            for offset, gain in _GAINS.items():
                low, high = struct.unpack("<2I", struct.pack("<d", gain))
                self._words[base + offset], self._words[base + offset + 4] = low, high

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies to the frames that they complete."""
        self._received += data
        reply = bytearray()
        while self._received:
            length = _LENGTHS.get(self._received[0])
            if length is None:
                del self._received[0]
            elif len(self._received) < length:
                break
            elif self._received[length - 1] != _END:
                del self._received[0]
            else:
                frame = bytes(self._received[:length])
                del self._received[:length]
                reply += self._execute(frame)
        return bytes(reply)

    def _execute(self, frame: bytes) -> bytes:
        kind, words = frame[0], struct.unpack(f"<{len(frame) // 4}I", frame[1:-1])
        if kind == _READ:
            return self._read(bytes([self._read_reply]), words[0], 1)
        if kind == _READ_BLOCK:
            return self._read(bytes([_READ_BLOCK]), words[0], words[1])
        if kind == _WRITE:
            self._write(*words)
        else:
            self._write(self._place + 4, words[0])
        return b""

    def _read(self, start: bytes, address: int, count: int) -> bytes:
        addresses = range(address, address + 4 * count, 4)
        if not count or not any(address in memory and addresses[-1] in memory for memory in _MEMORIES):
            return b""
        self._place = addresses[-1]
        words = struct.pack(f"<{count}I", *(self._word(each) for each in addresses))
        return start + struct.pack("<I", address) + words + bytes([_END])

    def _word(self, address: int) -> int:
        for channel, base in _CHANNELS.items():
            if address == base + _SENSOR:
                axis = self.axes[channel]
                counts = axis.position() * _FULL_SCALE / axis.full_range
                return _unsigned(struct.pack("<i", round(counts + 3 * self._noise * self._rng.standard_normal())))
        return self._words.get(address, 0)

    def _write(self, address: int, word: int) -> None:
        self._place = address
        if not any(address in memory for memory in _MEMORIES):
            return
        self._words[address] = word
        for channel, base in _CHANNELS.items():
            if address - base in _MOVERS:
                self._move(channel, base)

    def _move(self, channel: int, base: int) -> None:
        axis = self.axes[channel]
        (counts,) = struct.unpack("<i", struct.pack("<I", self._words.get(base + _COMMAND, 0)))
        gain = sum(self._gain(base + offset) for offset in _POSITION_GAINS) / _GAINS[0x728]
        axis.go(counts * axis.full_range / _FULL_SCALE, closed=self._words[base + _SERVO] == 1, gain=gain)

    def _gain(self, address: int) -> float:
        (gain,) = struct.unpack("<d", struct.pack("<2I", self._words[address], self._words[address + 4]))
        return float(gain)


def _unsigned(word: bytes) -> int:
    return int.from_bytes(word, "little")


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"npoint_lc400": LC400}
