"""One program per instrument on this machine: a file lock on its address, which says who has it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import DeviceBusyError

if TYPE_CHECKING:
    import filelock

__all__ = ["Ownership", "normalise"]


_INTERFACE = re.compile(r"ASRL|GPIB-VXI|GPIB|PXI|TCPIP|USB|VICP|VXI", re.IGNORECASE)
_KINDS = frozenset({"BACKPLANE", "INSTR", "INTFC", "MEMACC", "RAW", "SERVANT", "SOCKET"})
_NUMBERS = ("board", "port", "primary_address", "secondary_address", "usb_interface_number")
"""The parts of an address that are numbers, as pyvisa calls them; USB's identifiers, perhaps hexadecimal, are apart."""
_LAN_DEVICE = re.compile(r"((?:inst|hislip)\d+)(?:,0*(\d+))?", re.IGNORECASE)
"""The names of VXI-11 and of HiSLIP for what is at a host, perhaps with the port of HiSLIP."""
_HISLIP_PORT = "4880"
"""Where HiSLIP is when no port is said (IVI-6.1, 3.1)."""
_COM_PORT = re.compile(r"COM(\d+)", re.IGNORECASE)


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
    """Return the one spelling of a LAN device's name; what a gateway calls its devices stays as it is."""
    match = _LAN_DEVICE.fullmatch(name)
    if match is None:
        return name
    device, port = match[1].lower(), match[2]
    return device if port is None or (device.startswith("hislip") and port == _HISLIP_PORT) else f"{device},{port}"


class Ownership:
    """The claim of this process to one address.

    It ends with :meth:`release` or with the process, however that ends: the operating system holds the lock. It keeps
    out the programs of the same user on the same host that use this framework; VISA itself offers no lock that works
    on every interface.

    Args:
        address: as :func:`normalise` returns it.

    Attributes:
        inherited: whether the last owner died without giving it back: something that it asked may not be answered yet.

    Raises:
        DeviceBusyError: another process has it; says which.
    """

    def __init__(self, address: str) -> None:
        import filelock

        from catkit_devices.multiprocessing import runtime_directory

        directory = runtime_directory() / "instruments"
        directory.mkdir(mode=0o700, exist_ok=True)
        # Readable for whoever lists the directory, and unique: two addresses may differ by a character left out here.
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", address)[:80]
        name = f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
        self._facts = directory / f"{name}.owner"
        # Not per thread: whoever closes a device need not be the thread that opened it.
        self._lock: filelock.BaseFileLock = filelock.FileLock(directory / f"{name}.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise DeviceBusyError(f"{address} is in use by {_describe(self._facts)}") from None
        self.inherited = self._facts.exists()
        try:
            self._facts.write_text(json.dumps(_self()), encoding="utf-8")
        except OSError:
            self._lock.release()
            raise

    def release(self) -> None:
        """Give the address back."""
        with contextlib.suppress(OSError):
            self._facts.unlink(missing_ok=True)
        self._lock.release()


def _self() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "program": Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python",
        "server": os.environ.get("CATKIT_DEVICES_SERVER", ""),
    }


def _describe(file: Path) -> str:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        server = f", server {facts['server']!r}" if facts["server"] else ""
        return f"{facts['program']} (pid {facts['pid']}{server})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another program"
