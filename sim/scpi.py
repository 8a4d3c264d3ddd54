"""What SCPI instruments share: keywords in short and long form, binary blocks, the error queue, the status registers.

Source: SCPI-99 volume 1 (keywords, headers, status) and volume 2, chapters 20 (STATus) and 21 (errors); IEEE 488.2
(definite-length blocks, common commands).
"""

from __future__ import annotations

import re
from collections import deque
from functools import cached_property

__all__ = ["Commands", "Errors", "Keywords", "RefusedError", "Status", "block"]

# Numbers and texts of errors (SCPI-99 volume 2, 21.8).
DATA_TYPE_ERROR = (-104, "Data type error")
PARAMETER_NOT_ALLOWED = (-108, "Parameter not allowed")
MISSING_PARAMETER = (-109, "Missing parameter")
UNDEFINED_HEADER = (-113, "Undefined header")
PARAMETER_ERROR = (-220, "Parameter error")
OUT_OF_RANGE = (-222, "Data out of range")
ILLEGAL_VALUE = (-224, "Illegal parameter value")
INIT_IGNORED = (-213, "Init ignored")
DATA_STALE = (-230, "Data corrupt or stale")


class Keywords:
    """The keywords that an instrument knows.

    Args:
        spelling: as manuals spell them, ``"SENSe CORRection"``: the capitals are the short form.
    """

    def __init__(self, spelling: str) -> None:
        self._short = {}
        for word in spelling.split():
            short = "".join(letter for letter in word if not letter.islower())
            self._short[short] = self._short[word.upper()] = short

    def short(self, header: str) -> str:
        """Return a header with every keyword in short form, in capitals and without a leading colon.

        What is neither the short nor the long form of a known keyword stays as it is, and so matches nothing.
        """
        body, query = (header[:-1], "?") if header.endswith("?") else (header, "")
        words = body.removeprefix(":").upper().split(":")
        return ":".join(self._short.get(word, word) for word in words) + query


class Commands:
    """The commands that an instrument knows, whose headers may be written in several ways.

    Args:
        spelling: as manuals spell them, ``"[SENSe:]POWer[:DC]:RANGe[:UPPer]"``: the capitals are the short form, and
            nodes in brackets may be left out (SCPI-99 volume 1, 6.2).
    """

    def __init__(self, spelling: str) -> None:
        self._spelling = spelling

    @cached_property
    def _known(self) -> list[tuple[re.Pattern[str], str]]:
        """Each command's pattern and canonical form; made for the first header, not in every process that imports."""
        known = []
        for header in self._spelling.split():
            pattern, needed = "", []
            for optional, node in re.findall(r"(\[?):?(\*?[A-Za-z]+)", header):
                short = "".join(letter for letter in node if not letter.islower())
                pattern += f"(?::(?:{re.escape(short)}|{re.escape(node.upper())})){'?' if optional else ''}"
                if not optional:
                    needed.append(short)
            known.append((re.compile(pattern), ":".join(needed)))
        return known

    def canonical(self, header: str) -> str | None:
        """Return a header in short form, without nodes that may be left out and without a leading colon.

        None stands for a header that the instrument does not know.
        """
        body, query = (header[:-1], "?") if header.endswith("?") else (header, "")
        written = f":{body.removeprefix(':').upper()}"
        found = (canonical for pattern, canonical in self._known if pattern.fullmatch(written))
        known = next(found, None)
        return None if known is None else known + query

    def split(self, message: str) -> list[tuple[str | None, str]]:
        """Return the commands of a message, each as its canonical header and its argument.

        A header without a leading colon continues the path of the header before it (SCPI-99 volume 1, 6.2.4).
        """
        path = ""
        commands = []
        for unit in message.split(";"):
            header, _space, argument = unit.strip().partition(" ")
            if not header:
                continue
            if not header.startswith("*"):  # common commands leave the path as it is
                header = header if header.startswith(":") else f"{path}:{header}"
                path = header.rpartition(":")[0]
            commands.append((self.canonical(header), argument.strip()))
        return commands


class Errors:
    """An error queue, as ``SYSTem:ERRor?`` reads it."""

    def __init__(self) -> None:
        self._queue: deque[tuple[int, str]] = deque(maxlen=20)

    def add(self, error: tuple[int, str]) -> None:
        """Append an error: its number and text."""
        self._queue.append(error)

    def next(self) -> str:
        """Remove and return the oldest error as the instrument writes it."""
        number, text = self._queue.popleft() if self._queue else (0, "No error")
        return f'{number:+d},"{text}"'

    def clear(self) -> None:
        """Forget all errors."""
        self._queue.clear()

    def __len__(self) -> int:
        return len(self._queue)


class RefusedError(Exception):
    """A command that the instrument does not accept; the arguments are number and text of the error."""


class Status:
    """The status registers and the error queue of an instrument, and the commands for them.

    Sources: IEEE 488.2, 10.3 (*CLS), 10.10 to 10.12 (*ESE, *ESR), 10.18 to 10.19 (*OPC), 10.34 to 10.36 (*SRE, *STB),
    11.2 and 11.5.1 (bits); SCPI-99 volume 1, 9 and volume 2, 20 (STATus).
    """

    COMMON = "*CLS *ESE *ESR *OPC *SRE *STB *WAI"
    STATUS = "STATus:PRESet " + " ".join(
        f"STATus:{register}{part}"
        for register in ("OPERation", "QUEStionable", "MEASurement", "AUXillary")
        for part in ("[:EVENt]", ":CONDition", ":ENABle", ":PTRansition", ":NTRansition")
    )
    """Commands for :class:`Commands`. Nothing in this simulation makes a condition true."""

    def __init__(self) -> None:
        self.errors = Errors()
        self._events = 128  # power on
        self._enabled = {"*ESE": 0, "*SRE": 0}
        self._registers: dict[str, int] = {}

    def refuse(self, error: tuple[int, str]) -> None:
        """Record an error in the queue, and set the event bit of its class (SCPI-99 volume 2, 21.8.9 to 21.8.12)."""
        self.errors.add(error)
        self._events |= {1: 32, 2: 16, 3: 8, 4: 4}[-error[0] // 100]

    def execute(self, command: str, argument: str) -> str | None:
        """Do one of the commands and return its reply, if it has one.

        Raises:
            KeyError: it is not among those above.
            RefusedError: its argument is missing or not acceptable.
        """
        match command:
            case "*CLS":
                self.errors.clear()
                self._events = 0
            case "*OPC":
                self._events |= 1
            case "*OPC?":
                return "1"
            case "*WAI":
                pass
            case "*ESR?":
                events, self._events = self._events, 0
                return str(events)
            case "*STB?":
                return str(self._byte())
            case "*ESE" | "*SRE":
                self._enabled[command] = _register(argument, 255)
            case "*ESE?" | "*SRE?":
                return str(self._enabled[command[:-1]])
            case "SYST:ERR?":
                return self.errors.next()
            case "STAT:PRES":
                self._registers.clear()
            case _ if command.startswith("STAT:") and command.endswith((":ENAB", ":PTR", ":NTR")):
                self._registers[command] = _register(argument, 65535)
            case _ if command.startswith("STAT:") and command.endswith("?"):
                return str(self._registers.get(command[:-1], 32767 if command.endswith(":PTR?") else 0))
            case _:
                raise KeyError(command)
        return None

    def _byte(self) -> int:
        byte = 4 * bool(self.errors) | 32 * bool(self._events & self._enabled["*ESE"])
        return byte | 64 * bool(byte & self._enabled["*SRE"])


def _register(argument: str, highest: int) -> int:
    if not re.fullmatch(r"\+?\d{1,6}", argument):
        raise RefusedError(*(DATA_TYPE_ERROR if argument else MISSING_PARAMETER))
    if int(argument) > highest:
        raise RefusedError(*OUT_OF_RANGE)
    return int(argument)


def block(data: bytes) -> bytes:
    """Return ``data`` as a definite-length block: ``#``, the number of digits, the length in bytes, the data."""
    length = str(len(data))
    return f"#{len(length)}{length}".encode() + data
