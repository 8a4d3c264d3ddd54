"""A simulated Thorlabs PM100D power meter with an S120C sensor.

Sources: PM100D manual, SCPI chapter (p. 49-51); PM400 manual p. 42-46 and PM100USB manual p. 20-21 (the same command
tree); ThorlabsPM100 1.2.2 on PyPI (CONF?, and nodes that may be left out); pymeasure ``thorlabspm100usb.py``; QMI
``qmi/instruments/thorlabs/pm100d.py``; SCPI-99; IEEE 488.2. The answer to CONF?, the short form of what READ? measures,
was not checked with an instrument.

The plain commands are in ``thorlabs_pm100d.yaml``. This class adds what YAML cannot express: headers in every spelling,
several commands in one message, whose replies are one message, MIN, MAX and DEF, the status registers and errors of
IEEE 488.2 and SCPI-99, ``*RST``, readings from the bench at the wavelength that was set, and 3 ms for each sample of
the average. Above a range that was set by hand, a reading is 9.9E+37, as SCPI prescribes. If the unit is set to DBM,
readings are in dBm.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catkit_devices.errors import ConfigurationError
from catkit_devices.hookspecs import hookimpl
from catkit_devices.sim import scpi
from catkit_devices.simulation import Outbox, YamlInstrument

if TYPE_CHECKING:
    from catkit_devices.simulation import Bench

__all__ = ["PM100D"]

_COMMANDS = scpi.Commands(
    f"""
    {scpi.Status.COMMON} *IDN *RST *TST {scpi.Status.STATUS}
    SYSTem:VERSion SYSTem:ERRor[:NEXT] SYSTem:LFRequency SYSTem:SENSor:IDN
    [SENSe:]CORRection:WAVelength [SENSe:]CORRection:BEAMdiameter [SENSe:]AVERage[:COUNt]
    [SENSe:]CORRection:COLLect:ZERO[:INITiate] [SENSe:]CORRection:COLLect:ZERO:ABORt
    [SENSe:]CORRection:COLLect:ZERO:STATe [SENSe:]CORRection:COLLect:ZERO:MAGNitude
    [SENSe:]POWer[:DC]:RANGe[:UPPer] [SENSe:]POWer[:DC]:RANGe:AUTO [SENSe:]POWer[:DC]:UNIT
    [SENSe:]POWer[:DC]:REFerence[:VALue] [SENSe:]POWer[:DC]:REFerence:STATe
    CONFigure[:SCALar] CONFigure[:SCALar]:POWer CONFigure[:SCALar]:CURRent[:DC] CONFigure[:SCALar]:TEMPerature
    MEASure[:SCALar] MEASure[:SCALar]:POWer MEASure[:SCALar]:CURRent[:DC] MEASure[:SCALar]:TEMPerature
    INITiate[:IMMediate] FETCh READ ABORt
    """
)
"""What it knows; in brackets what may be left out."""
_FUNCTIONS = {"": "POW", ":POW": "POW", ":CURR": "CURR", ":TEMP": "TEMP"}
"""What is measured, by the last word of the command."""
_LIMITS = {"MIN": "min", "MINIMUM": "min", "MAX": "max", "MAXIMUM": "max", "DEF": "default", "DEFAULT": "default"}
"""Words that stand for a number."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d{1,3})?", re.IGNORECASE)
"""A number as SCPI has it."""
_OVERFLOW = 9.9e37
"""Reading for a power above the range (SCPI-99 volume 1, 7.2.1.4)."""
_RESPONSIVITY = 0.38
"""Responsivity of the sensor in A/W."""
_TEMPERATURE = 21.0
"""°C of the sensor, on a bench without a temperature."""
_SAMPLE_TIME = 0.003
"""Seconds for each sample of the average (PM100D manual)."""
_REFUSED = b"?"
"""The answer of the file to a command that it does not know or accept."""


class PM100D(YamlInstrument):
    """The simulator ``thorlabs_pm100d``.

    Args:
        bench: the simulated bench that it is part of; its ``meter_power(wavelength)``, if it has one, is the light on
            the sensor, and its ``temperature()`` the sensor's temperature.
        power: W on the sensor, on a bench without ``meter_power``.
    """

    def __init__(self, bench: Bench, *, power: float = 0.0) -> None:
        if hasattr(bench, "meter_power") and power:
            raise ConfigurationError("the option power is for a bench without light: here the bench has meter_power()")
        self._power = power
        self._outbox = Outbox(bench.clock)
        self._status = scpi.Status()
        self._function = "POW"
        self._last = 0.0
        super().__init__(bench, Path(__file__).with_name("thorlabs_pm100d.yaml"))
        self._settable: dict[str, dict[str, Any]] = {
            quantity["getter"]["q"].removesuffix("?"): quantity for quantity in self._definitions["properties"].values()
        }

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that the meter has sent by now."""
        if reply := super().feed(data):
            self._outbox.put(reply)
        return self._outbox.take()

    def clear(self) -> None:
        """Forget a half-received message and unread replies."""
        super().clear()
        self._outbox.clear()

    def answer(self, message: bytes) -> bytes:
        """Return the answer to one message; one that takes time is sent later, by :meth:`feed`."""
        replies = []
        delay = 0.0
        for command, argument in _COMMANDS.split(message.decode("latin-1")):
            try:
                reply = self._execute(command, argument)
            except scpi.RefusedError as error:
                self._status.refuse((error.args[0], error.args[1]))
                continue
            if reply is not None:
                replies.append(reply)
            if command is not None and command.startswith(("READ", "MEAS")):
                delay += self.value("average_count") * _SAMPLE_TIME
        if not replies:
            return b""
        data = ";".join(replies).encode("latin-1") + self.message_end
        if delay == 0:
            return data
        self._outbox.put(data, delay)
        return b""

    def _execute(self, command: str | None, argument: str) -> str | None:
        if command is None:
            raise scpi.RefusedError(*scpi.UNDEFINED_HEADER)
        header, query = command.removesuffix("?"), command.endswith("?")
        action, _colon, function = header.partition(":")
        match action, query:
            case "*RST", False:
                self.reset()
                self._function = "POW"
            case "CONF", True if not function:
                return self._function
            case "CONF", False:
                self._function = _FUNCTIONS[header[4:]]
            case "INIT", False:
                self._measure()
            case "MEAS", True:
                self._function = _FUNCTIONS[header[4:]]
                return f"{self._measure():.8E}"
            case "READ", True:
                return f"{self._measure():.8E}"
            case "FETC", True:
                return f"{self._last:.8E}"
            case _:
                try:
                    return self._status.execute(command, argument)
                except KeyError:
                    return self._ask_file(header, query, argument)
        return None

    def _ask_file(self, header: str, query: bool, argument: str) -> str | None:
        """Return the answer of the file to a command, or set one of the file's properties."""
        quantity = self._settable.get(header)
        if quantity is not None and argument.upper() in _LIMITS:
            argument = _limit(quantity, argument)
            if query:
                return str(quantity["getter"]["r"]).format(_TYPES[quantity["specs"]["type"]](argument))
        elif quantity is not None and not query:
            argument = _parameter(quantity, argument)
        sent = f"{header}{'?' if query else ''} {argument}".strip()
        reply = super().answer(sent.encode("latin-1")).removesuffix(self.message_end)
        if reply != _REFUSED:
            return reply.decode("latin-1") if query else None
        if quantity is not None and not query:
            number = quantity["specs"]["type"] != "str"
            raise scpi.RefusedError(*(scpi.OUT_OF_RANGE if number else scpi.ILLEGAL_VALUE))
        raise scpi.RefusedError(*(scpi.PARAMETER_NOT_ALLOWED if argument else scpi.UNDEFINED_HEADER))

    def _measure(self) -> float:
        light = self._light()
        if self._function == "CURR":
            self._last = _RESPONSIVITY * light
        elif self._function == "TEMP":
            temperature = getattr(self.bench, "temperature", None)
            self._last = _TEMPERATURE if temperature is None else float(temperature())
        elif not self.value("range_auto") and light > self.value("range"):
            self._last = _OVERFLOW
        elif self.value("unit") == "DBM":
            self._last = 10 * math.log10(max(light, 1e-15) / 1e-3)
        else:
            self._last = light
        return self._last

    def _light(self) -> float:
        bench_power = getattr(self.bench, "meter_power", None)
        return float(self._power if bench_power is None else bench_power(self.value("wavelength")))


_TYPES = {"float": float, "int": int}
"""Types that the description of its settings names."""


def _limit(quantity: dict[str, Any], word: str) -> str:
    """Return the value that MIN, MAX or DEF means."""
    which = _LIMITS[word.upper()]
    found = quantity["default"] if which == "default" else quantity["specs"].get(which)
    if found is None or quantity["specs"]["type"] not in _TYPES:
        raise scpi.RefusedError(*scpi.ILLEGAL_VALUE)
    return str(found)


def _parameter(quantity: dict[str, Any], argument: str) -> str:
    """Return a value that is to be set, in the form that the file accepts."""
    if not argument:
        raise scpi.RefusedError(*scpi.MISSING_PARAMETER)
    specs = quantity["specs"]
    if specs["type"] == "str":
        return argument.upper()
    if specs.get("valid") == ["0", "1"]:
        argument = {"OFF": "0", "ON": "1"}.get(argument.upper(), argument)
    if not _NUMBER.fullmatch(argument):
        raise scpi.RefusedError(*scpi.DATA_TYPE_ERROR)
    number = float(argument)
    if not math.isfinite(number):
        raise scpi.RefusedError(*scpi.OUT_OF_RANGE)
    return str(round(number)) if specs["type"] == "int" else argument  # an instrument rounds


@hookimpl
def catkit_devices_simulators() -> dict[str, type]:
    """Register the simulator."""
    return {"thorlabs_pm100d": PM100D}
