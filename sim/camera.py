r"""A simulated camera with commands of our own, similar to those of SCPI instruments on a TCP socket.

There is no such product: this file is its manual. Commands and text replies end with LF. Keywords are accepted in
short and long form, in capitals or small letters; one command per line. A wrong command gets no answer; its error is
added to the error queue.

=============================  ========================================================================================
``*IDN?``                      ``CATKIT_DEVICES,SIMCAM,<serial number>,1.0``
``*RST``, ``*CLS``, ``*OPC?``  defaults; clear errors; ``1``
``SYSTem:ERRor[:NEXT]?``       oldest error: ``-113,"Undefined header"``; ``+0,"No error"`` when there is none
``SENSor:SIZE?``               rows and columns of the sensor: ``128,128``
``SENSor:PIXel?``              pixel pitch in µm: ``5.0``
``SENSor:SATuration?``         largest pixel value: ``65535``
``EXPosure <s>``               exposure time, 1e-5 to 10 s; ``EXPosure?`` asks, ``EXPosure? MIN|MAX`` the limits
``ROI <row>,<column>,<n>,<m>``  region of n rows by m columns from (row, column), from 0; ``ROI?`` asks
``INITiate``                   begin an exposure; error -213 during an exposure
``INITiate:STATe?``            ``1`` during an exposure, else ``0``
``INITiate:CONTinuous 1``      begin to expose again and again, each time as soon as the last frame is complete; ``0``
                               ends that, as ``ABORt`` does; ``INITiate:CONTinuous?`` asks
``ABORt``                      end the exposure without a frame
``FETCh?``                     the last frame, when it is complete; -230 and no reply when there is none. Of continuous
                               exposures each frame is sent once: the last complete one, else the next
``READ?``                      ``INITiate`` and ``FETCh?``
=============================  ========================================================================================

A frame is a definite-length block of IEEE 488.2 (``#``, number of digits, length in bytes, data) and LF. The data are
the rows of the region from row 0 on, each pixel a little-endian unsigned 16-bit number. A frame is complete after the
exposure time and 2 ms for reading out.

One count is one photo-electron: the value of a pixel is a bias of 100, plus the electrons of the spot and of a
background of 50 per pixel and second (Poisson), plus read noise (sigma 3), at most 65535, where it saturates. x grows
with the columns and y with the rows; the middle of the sensor is x = y = 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi
from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from catkit_devices.simulation import Bench

__all__ = ["Camera", "picture"]

_KEYWORDS = scpi.Keywords(
    "SYSTem ERRor NEXT SENSor SIZE PIXel SATuration EXPosure ROI INITiate STATe CONTinuous ABORt FETCh READ MINimum "
    "MAXimum"
)
"""Words of its commands; capital letters are the short form."""
_EXPOSURES = (1e-5, 10.0)
"""Seconds; the shortest and the longest exposure."""
_READ_OUT = 0.002
"""Seconds from the end of the exposure until the frame can be fetched."""
_BIAS, _READ_NOISE, _BACKGROUND, _SATURATION = 100.0, 3.0, 50.0, 65535
"""Offset and rms read noise in counts, background in counts per second, and the largest pixel value."""

#: What a camera on a bench without a spot sees: photons per second, x, y and sigma in µm.
_TEST_SPOT = (1e7, 0.0, 0.0, 25.0)


class _WrongError(Exception):
    """A command that is not carried out; the arguments are number and text for the error queue."""


@dataclass
class _Frame:
    exposure: float
    region: tuple[int, int, int, int]
    complete_at: float
    pixels: bytes | None = None


class Camera:
    """The simulator ``scpi_camera``.

    Args:
        bench: the simulated bench that it is part of; its ``spot(time)``, if it has one, is what the camera sees.
        rows: of the sensor.
        columns: of the sensor.
        pixel: µm, the pixel pitch.
        serial_number: for ``*IDN?``.
    """

    message_end = b"\n"

    def __init__(
        self, bench: Bench, *, rows: int = 128, columns: int = 128, pixel: float = 5.0, serial_number: str = "0001"
    ) -> None:
        if rows < 1 or columns < 1 or not pixel > 0:
            raise ConfigurationError(f"rows, columns and pixel must be above 0, got {rows!r}, {columns!r}, {pixel!r}")
        self.bench = bench
        self._shape = (rows, columns)
        self._pixel = pixel
        self._serial_number = serial_number
        self._errors = scpi.Errors()
        self._outbox = Outbox(bench.clock)
        self._received = bytearray()
        self._rng = bench.rng(f"camera {serial_number}")
        self._reset()
        self._queries: dict[str, Callable[[], str]] = {
            "*IDN?": lambda: f"CATKIT_DEVICES,SIMCAM,{serial_number},1.0",
            "*OPC?": lambda: "1",
            "SYST:ERR?": self._errors.next,
            "SYST:ERR:NEXT?": self._errors.next,
            "SENS:SIZE?": lambda: f"{rows},{columns}",
            "SENS:PIX?": lambda: f"{pixel}",
            "SENS:SAT?": lambda: f"{_SATURATION}",
            "EXP?": lambda: f"{self._exposure:.6E}",
            "ROI?": lambda: ",".join(str(number) for number in self._region),
            "INIT:STAT?": lambda: f"{self._busy():d}",
            "INIT:CONT?": lambda: f"{self._continuous:d}",
        }
        self._commands: dict[str, Callable[[str], None]] = {
            "*RST": lambda _argument: self._reset(),
            "*CLS": lambda _argument: self._errors.clear(),
            "EXP": self._set_exposure,
            "ROI": self._set_region,
            "INIT": lambda _argument: self._begin(),
            "INIT:CONT": lambda argument: self._set_continuous(bool(int(argument))),
            "ABOR": lambda _argument: self._abort(),
            "FETC?": lambda _argument: self._fetch(),
            "READ?": lambda _argument: self._read(),
        }

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that the camera has sent by now."""
        self._received += data
        *lines, rest = bytes(self._received).split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            self._execute(line.decode("latin-1").strip())
        return self._outbox.take()

    def _execute(self, line: str) -> None:
        header, _space, argument = line.partition(" ")
        header, argument = _KEYWORDS.short(header), argument.strip()
        try:
            if header == "EXP?" and argument:
                limits = dict(zip(("MIN", "MAX"), _EXPOSURES, strict=True))
                self._reply(f"{limits[_KEYWORDS.short(argument)]:.6E}")
            elif header in self._queries:
                self._reply(self._queries[header]())
            elif header in self._commands:
                self._commands[header](argument)
            elif header:
                self._errors.add(scpi.UNDEFINED_HEADER)
        except _WrongError as error:
            self._errors.add((error.args[0], error.args[1]))
        except (KeyError, ValueError):
            self._errors.add(scpi.PARAMETER_ERROR)

    def _reply(self, text: str) -> None:
        self._outbox.put(text.encode() + b"\n")

    def _reset(self) -> None:
        self._exposure = 0.01
        self._region = (0, 0, *self._shape)
        self._abort()

    def _abort(self) -> None:
        self._outbox.clear()
        self._frame: _Frame | None = None
        self._continuous = False

    def _set_exposure(self, argument: str) -> None:
        exposure = float(argument)
        if not _EXPOSURES[0] <= exposure <= _EXPOSURES[1]:
            raise _WrongError(*scpi.OUT_OF_RANGE)
        self._exposure = exposure

    def _set_region(self, argument: str) -> None:
        row, column, rows, columns = (int(number) for number in argument.split(","))
        inside = rows > 0 and columns > 0 and 0 <= row <= self._shape[0] - rows
        if not inside or not 0 <= column <= self._shape[1] - columns:
            raise _WrongError(*scpi.OUT_OF_RANGE)
        self._region = (row, column, rows, columns)

    def _busy(self) -> bool:
        return self._continuous or (self._frame is not None and self.bench.clock.time() < self._frame.complete_at)

    def _begin(self) -> None:
        if self._busy():
            raise _WrongError(*scpi.INIT_IGNORED)
        self._frame = self._exposed_from(self.bench.clock.time())

    def _exposed_from(self, time: float) -> _Frame:
        return _Frame(self._exposure, self._region, time + self._exposure + _READ_OUT)

    def _set_continuous(self, wanted: bool) -> None:
        if not wanted:
            self._abort()
        else:
            self._begin()
            self._continuous = True

    def _fetch(self) -> None:
        frame = self._frame
        if frame is None:
            raise _WrongError(*scpi.DATA_STALE)
        if self._continuous:
            newer = (self.bench.clock.time() - frame.complete_at) // (self._exposure + _READ_OUT)
            if newer > 0:  # the frames before it were not fetched in time
                frame = replace(frame, complete_at=frame.complete_at + newer * (self._exposure + _READ_OUT))
            self._frame = self._exposed_from(frame.complete_at)
        self._outbox.put(lambda: scpi.block(self._pixels(frame)) + b"\n", at=frame.complete_at)

    def _read(self) -> None:
        self._begin()
        self._fetch()

    def _pixels(self, frame: _Frame) -> bytes:
        """Return the data of a frame. It is made when it is first sent, so that each exposure has its noise once."""
        if frame.pixels is None:
            row, column, rows, columns = frame.region
            image = self._image(frame.exposure, frame.complete_at - _READ_OUT - frame.exposure / 2)
            frame.pixels = image[row : row + rows, column : column + columns].astype("<u2").tobytes()
        return frame.pixels

    def _image(self, exposure: float, time: float) -> np.ndarray[Any, np.dtype[np.float64]]:
        spot: Any = getattr(self.bench, "spot", None)
        seen = _TEST_SPOT if spot is None else spot(time)
        return picture(seen, self._shape, self._pixel, exposure, self._rng)


def picture(
    spot: tuple[float, float, float, float],
    shape: tuple[int, int],
    pixel: float,
    exposure: float,
    rng: np.random.Generator,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return one frame of a spot, in counts.

    Args:
        spot: photons per second, x, y and sigma in µm.
        shape: rows and columns.
        pixel: µm, the pixel pitch.
        exposure: seconds.
        rng: for the noise.
    """
    import numpy as np

    photons, x, y, sigma = spot
    profiles = []
    for offset, length in ((y, shape[0]), (x, shape[1])):
        place = (np.arange(length) - (length - 1) / 2) * pixel
        profiles.append(np.exp(-0.5 * ((place - offset) / sigma) ** 2))
    peak = photons * exposure * pixel**2 / (2 * np.pi * sigma**2)
    expected = peak * np.outer(*profiles) + _BACKGROUND * exposure
    electrons = rng.poisson(expected) + rng.normal(_BIAS, _READ_NOISE, shape)
    return np.asarray(np.minimum(np.maximum(np.rint(electrons), 0), _SATURATION), dtype=np.float64)


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"scpi_camera": Camera}
