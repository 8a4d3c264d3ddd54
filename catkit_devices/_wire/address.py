"""How the addresses of instruments are spelt: the one spelling of each VISA address, and VISA's for serial ports."""

from __future__ import annotations

import ipaddress
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
_NUMBERS = (
    "board", "interface", "port", "primary_address", "secondary_address", "usb_interface_number", "chassis_number",
    "vxi_logical_address",
)  # fmt: skip
"""The parts of an address that are numbers, as pyvisa calls them; USB identifiers are not among them, because they may
be hexadecimal."""
_IPV6 = re.compile(r"(?<=::)\[((?:[0-9A-F]*:){2,}[0-9A-F.]*(?:%[\w.-]+)?)\](?=::|,|$)", re.IGNORECASE)
"""A host that is an IPv6 address, as VISA has it: in brackets."""
_IPV4 = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)")
"""A host that is an IPv4 address, or that some system would read as one: its last part is a number."""
_LAN_DEVICE = re.compile(r"(?:inst|hislip|gpib)\d+(?:,\d+)*", re.IGNORECASE)
"""The names that VXI-11 and HiSLIP have for the devices of a host. Behind them may be the port of HiSLIP, or the
addresses on the GPIB of a gateway (VXI-11.2)."""
_HISLIP_PORT = "4880"
"""The default port of HiSLIP (IVI-6.1, 3.1)."""
_COM_PORT = re.compile(r"(?:\\\\\.\\)?COM(\d+)", re.IGNORECASE)
"""The name of a serial port on Windows; all but the first nine need the characters before it in some programs."""


def normalise(address: str) -> str:
    """Return the one spelling of a VISA address, whichever of its spellings was given.

    VISA's own words are not case sensitive, numbers may have leading zeros, and what is left out has a default
    (VPP-4.3, section 4.3: address strings). The name of a serial port (``COM3``, ``/dev/ttyUSB0``) is one, too, and
    links to a port are followed. Names of hosts are not looked up: a name and its number are two addresses.

    Raises:
        ValueError: when it is no VISA address, or when not everybody would understand it in the same way.
    """
    try:
        return _normalise(address)
    except ValueError as error:
        raise ValueError(f"{address!r} is no VISA address: {error}") from error


def _normalise(address: str) -> str:
    from pyvisa import rname

    address = address.strip()
    if address.startswith("/dev/") or _COM_PORT.fullmatch(address):
        address = visa_address(address)
    # pyvisa takes an address apart at each "::", which the full form of IPv6 does not have.
    first, *rest = _IPV6.sub(_full_ipv6, address).split("::")
    if match := _INTERFACE.match(first):
        first = match[0].upper() + first[match.end() :]
    if rest and rest[-1].upper() in _KINDS:
        rest[-1] = rest[-1].upper()
    parsed = rname.ResourceName.from_string("::".join([first, *rest]))
    if isinstance(parsed, rname.ASRLInstr):
        parsed.board = _port(parsed.board)
        return str(parsed)
    for name in _NUMBERS:
        value = getattr(parsed, name, None)
        if isinstance(value, str):
            setattr(parsed, name, _number(value, name))
    if isinstance(parsed, rname.USBInstr | rname.USBRaw):
        parsed.manufacturer_id = _identifier(parsed.manufacturer_id)
        parsed.model_code = _identifier(parsed.model_code)
    elif isinstance(parsed, rname.TCPIPSocket | rname.TCPIPInstr | rname.VICPInstr | rname.PrlgxTCPIPIntfc):
        parsed.host_address = _host(parsed.host_address)
        if isinstance(parsed, rname.TCPIPInstr):
            parsed.lan_device_name = _lan_device(parsed.lan_device_name)
        elif isinstance(parsed, rname.VICPInstr):
            parsed._unused = None  # noqa: SLF001 - the number of the interface, of which there is only one
    return str(parsed)


def _port(name: str) -> str:
    """Return the name of a serial port in one spelling."""
    if name.startswith("/"):
        return os.path.realpath(name)  # /dev/serial/by-id/... and /dev/ttyUSB0 are one port
    if match := _COM_PORT.fullmatch(name):
        name = match[1]  # ASRLCOM3 is ASRL3
    return str(int(name)) if name.isdecimal() else name


def _number(text: str, name: str) -> str:
    if not text.isdecimal():
        raise ValueError(f"a number was expected as {name.replace('_', ' ')}, got {text!r}")
    return str(int(text))


def _full_ipv6(found: re.Match[str]) -> str:
    """Return an IPv6 address with all of its eight numbers; as IPv4 if it only stands for such an address."""
    address = ipaddress.IPv6Address(found[1])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    groups = (address.packed[index : index + 2].hex().lstrip("0") or "0" for index in range(0, 16, 2))
    scope = "" if address.scope_id is None else f"%{address.scope_id}"
    return f"[{':'.join(groups)}{scope}]"


def _host(text: str) -> str:
    """Return a host in one spelling; pyvisa-py takes a port behind it."""
    host, comma, port = text.partition(",")
    if not host.startswith("["):
        host = host.lower().removesuffix(".")
        if not host or not host.isprintable() or " " in host:
            raise ValueError(f"the name or number of a host was expected, got {text!r}")
        if _IPV4.fullmatch(host):
            try:
                ipaddress.IPv4Address(host)
            except ValueError:
                raise ValueError(
                    f"four numbers such as 10.0.0.7 were expected as host, got {text!r}; leading zeros are refused, "
                    "because some systems read such a number as octal and others do not"
                ) from None
    return f"{host},{_number(port, 'port')}" if comma else host


def _identifier(text: str) -> str:
    """Return an identifier of USB, which may be decimal or hexadecimal, as VISA prints it."""
    if not re.fullmatch(r"0x[0-9a-f]+|[0-9]+", text, re.IGNORECASE):
        raise ValueError(f"a number such as 0x1313 or 4883 was expected, got {text!r}")
    return f"0x{int(text, 16 if text[1:2] in ('x', 'X') else 10):04X}"


def _lan_device(name: str) -> str:
    """Return the name of a LAN device in one spelling; other names that a host gives to its devices are not changed."""
    if _LAN_DEVICE.fullmatch(name) is None:
        return name
    name = re.sub(r"\d+", lambda found: str(int(found[0])), name.lower())
    return name.removesuffix(f",{_HISLIP_PORT}") if name.startswith("hislip") else name


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
    return not _SPECIAL.isdisjoint(_IPV6.sub("", address))


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
