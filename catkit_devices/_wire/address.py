"""How the addresses of instruments are spelt: the one spelling of each VISA address, and VISA's for serial ports."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["example", "is_expression", "matching", "normalise", "visa_address"]

_INTERFACE = re.compile(r"ASRL|GPIB-VXI|GPIB|PXI|TCPIP|USB|VICP|VXI", re.IGNORECASE)
"""The interfaces of VISA's addresses, which are not case sensitive (VPP-4.3, section 4.3)."""
_KINDS = frozenset({"BACKPLANE", "INSTR", "INTFC", "MEMACC", "RAW", "SERVANT", "SOCKET"})
"""What an address may end with."""
_NUMBERS = ("board", "port", "primary_address", "secondary_address", "usb_interface_number")
"""The parts of an address that are numbers, as pyvisa calls them; USB identifiers are not among them, because they may
be hexadecimal."""
_LAN_DEVICE = re.compile(r"((?:inst|hislip)\d+)(?:,0*(\d+))?", re.IGNORECASE)
"""The names that VXI-11 and HiSLIP have for the devices of a host, perhaps with the port of HiSLIP."""
_HISLIP_PORT = "4880"
"""The default port of HiSLIP (IVI-6.1, 3.1)."""
_COM_PORT = re.compile(r"COM(\d+)", re.IGNORECASE)
"""The name of a serial port on Windows."""


def normalise(address: str) -> str:
    """Return the one spelling of a VISA address, whichever of its spellings was given.

    VISA's own words are not case sensitive, numbers may have leading zeros, and what is left out has a default
    (VPP-4.3, section 4.3: address strings).

    Raises:
        ValueError: when it is no VISA address.
    """
    try:
        return _normalise(address)
    except ValueError as error:
        raise ValueError(f"{address!r} is no VISA address: {error}") from error


def _normalise(address: str) -> str:
    from pyvisa import rname

    first, *rest = address.strip().split("::")
    if match := _INTERFACE.match(first):
        first = match[0].upper() + first[match.end() :]
    if rest and rest[-1].upper() in _KINDS:
        rest[-1] = rest[-1].upper()
    parsed = rname.ResourceName.from_string("::".join([first, *rest]))
    for name in _NUMBERS:
        value = getattr(parsed, name, None)
        if isinstance(value, str) and value.isdecimal():
            setattr(parsed, name, str(int(value)))
    if isinstance(parsed, rname.USBInstr | rname.USBRaw):
        parsed.manufacturer_id = _identifier(parsed.manufacturer_id)
        parsed.model_code = _identifier(parsed.model_code)
    elif isinstance(parsed, rname.TCPIPSocket | rname.TCPIPInstr):
        parsed.host_address = parsed.host_address.lower()
        if isinstance(parsed, rname.TCPIPInstr):
            parsed.lan_device_name = _lan_device(parsed.lan_device_name)
    elif isinstance(parsed, rname.ASRLInstr) and parsed.board.startswith("/"):
        parsed.board = os.path.realpath(parsed.board)  # /dev/serial/by-id/... and /dev/ttyUSB0 are one port
    elif isinstance(parsed, rname.ASRLInstr) and (match := _COM_PORT.fullmatch(parsed.board)):
        parsed.board = str(int(match[1]))  # ASRLCOM3 is ASRL3
    return str(parsed)


def _identifier(text: str) -> str:
    """Return an identifier of USB, which may be decimal or hexadecimal, as VISA prints it."""
    try:
        return f"0x{int(text, 0 if text.lower().startswith('0x') else 10):04X}"
    except ValueError as error:
        raise ValueError(f"a number such as 0x1313 or 4883 was expected, got {text!r}") from error


def _lan_device(name: str) -> str:
    """Return the name of a LAN device in one spelling; names that a gateway gives to its devices are not changed."""
    match = _LAN_DEVICE.fullmatch(name)
    if match is None:
        return name
    device, port = match[1].lower(), match[2]
    return device if port is None or (device.startswith("hislip") and port == _HISLIP_PORT) else f"{device},{port}"


def visa_address(address: str) -> str:
    """Return the VISA address of a serial port, however it was given: name, URL, or VISA address."""
    if re.match("ASRL", address, re.IGNORECASE):
        return address
    windows = _COM_PORT.fullmatch(address)
    return f"ASRL{windows[1] if windows else address}::INSTR"


# --- expressions, by which an instrument is found

_SPECIAL = frozenset("?*[|")
"""Characters that are in VISA resource expressions and in no address (VPP-4.3, table 4.3.1)."""
_NO_BOARD = re.compile(r"^(ASRL|GPIB|TCPIP|USB)(?=::)", re.IGNORECASE)
"""An interface without a board number, which then is 0."""


def is_expression(address: str) -> bool:
    """Return whether it is a VISA resource expression, which may match several addresses: ``USB?*::P0001::INSTR``."""
    return not _SPECIAL.isdisjoint(address)


def matching(addresses: Iterable[str], expression: str) -> list[str]:
    """Return the addresses to which a VISA resource expression applies, each in its one spelling.

    The spelling of the expression does not matter: with identifiers of USB in decimal or hexadecimal digits, with or
    without the number of the interface.

    Raises:
        ValueError: it is no expression.
    """
    import pyvisa
    from pyvisa import rname

    wanted = _NO_BOARD.sub(r"\g<1>0", expression)
    found = []
    for address in addresses:
        try:
            spellings = [address, normalise(address)]
        except ValueError:
            continue
        spellings.append(re.sub(r"(?<=::)0x[0-9A-F]{4}(?=::)", lambda found: str(int(found[0], 16)), spellings[1]))
        spellings += [spelling.replace("::0::INSTR", "::INSTR") for spelling in spellings]
        try:
            if rname.filter(spellings, wanted):
                found.append(spellings[1])
        except (pyvisa.Error, re.error) as error:
            raise ValueError(f"{expression!r} is no VISA resource expression: {error}") from error
    return list(dict.fromkeys(found))


def example(expression: str, number: int) -> str:
    """Return an address to which an expression applies, where a simulated instrument can be.

    Args:
        expression: a VISA resource expression.
        number: a part of the address, so that those of several instruments differ.

    Raises:
        ValueError: none could be made of it.
    """
    plain = _NO_BOARD.sub(
        r"\g<1>0", expression.split("|", maxsplit=1)[0].replace("?*", str(number)).replace("?", str(number))
    )
    plain = re.sub(r"\[(.)[^]]*\]", r"\1", plain).replace("*", "").replace("(", "").replace(")", "")
    usual = {
        "USB": f"USB0::0x1313::0x0001::SIM{number}::INSTR",
        "GPIB": f"GPIB0::{number}::INSTR",
        "ASRL": f"ASRL{number}::INSTR",
        "TCPIP": f"TCPIP0::192.0.2.{number}::inst0::INSTR",  # an address that no real instrument has (RFC 5737)
    }
    for address in (plain, *usual.values()):
        if matching([address], expression):
            return normalise(address)
    raise ValueError(
        f"no address for a simulated instrument can be made from {expression!r}: write a larger part of the address, "
        "for example USB0::0x1313::0x8078::?*::INSTR"
    )
