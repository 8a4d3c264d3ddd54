"""What SCPI instruments share: keywords in short and long form, binary blocks, the error queue, the status registers.

Source: SCPI-99 volume 1 (keywords, headers, status) and volume 2, chapters 20 (STATus) and 21 (errors); IEEE 488.2
(definite-length blocks, common commands).
"""

from __future__ import annotations

import math
import re
from collections import deque
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from catkit_devices.simulation import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from catkit_devices.simulation import Bench

__all__ = ["Choice", "Commands", "Errors", "Keywords", "Number", "RefusedError", "ScpiSimulator", "Status", "block"]

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
            nodes in brackets may be left out; ``#`` behind a node is a number, 1 if it is left out (SCPI-99 volume
            1, 6.2).
    """

    def __init__(self, spelling: str) -> None:
        self._spelling = spelling

    @cached_property
    def _known(self) -> list[tuple[re.Pattern[str], str]]:
        """Each command's pattern and canonical form; made for the first header, not in every process that imports."""
        known = []
        for header in self._spelling.split():
            pattern, needed = "", []
            for optional, node, numbered in re.findall(r"(\[?):?(\*?[A-Za-z]+)(#?)", header):
                short = "".join(letter for letter in node if not letter.islower())
                number = "([0-9]*)" if numbered else ""
                pattern += f"(?::(?:{re.escape(short)}|{re.escape(node.upper())}){number}){'?' if optional else ''}"
                if not optional or numbered:
                    needed.append(short + ("{}" if numbered else ""))
            known.append((re.compile(pattern), ":".join(needed)))
        return known

    def canonical(self, header: str) -> str | None:
        """Return a header in short form, without nodes that may be left out and without a leading colon.

        None means a header that the instrument does not know.
        """
        body, query = (header[:-1], "?") if header.endswith("?") else (header, "")
        written = f":{body.removeprefix(':').upper()}"
        for pattern, canonical in self._known:
            if found := pattern.fullmatch(written):
                return canonical.format(*(number or "1" for number in found.groups())) + query
        return None

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


# Numbers as programs may send them (IEEE 488.2, 7.7.2), and the words that stand for some (SCPI-99 volume 1, 7.2.1.2).
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d{1,3})?", re.IGNORECASE)
_LIMITS = {"MIN": "low", "MINIMUM": "low", "MAX": "high", "MAXIMUM": "high", "DEF": "default", "DEFAULT": "default"}
"""Words that stand for a number."""


class Number:
    """A setting that is a number.

    Args:
        default: after ``*RST``.
        low: the lowest that is accepted.
        high: the highest.
        form: how it is told.
    """

    def __init__(self, default: float, low: float, high: float, form: str = "{:+.8E}") -> None:
        self.default, self.low, self.high, self.form = default, low, high, form

    def parse(self, argument: str) -> float:
        """Return what an argument means."""
        if not argument:
            raise RefusedError(*MISSING_PARAMETER)
        if argument.upper() in _LIMITS:
            return float(getattr(self, _LIMITS[argument.upper()]))
        if not _NUMBER.fullmatch(argument):
            raise RefusedError(*DATA_TYPE_ERROR)
        if not self.low <= (number := float(argument)) <= self.high or not math.isfinite(number):
            raise RefusedError(*OUT_OF_RANGE)
        return number

    def text(self, value: float) -> str:
        """Return how a value is told."""
        return self.form.format(value)


class Choice:
    """A setting that is one of some words.

    Args:
        default: after ``*RST``, as it is told.
        words: by what may be sent, in capitals, what is then sent as the answer: ``{"ON": "1", "OFF": "0", "1": "1",
            "0": "0"}``.
    """

    def __init__(self, default: str, words: dict[str, str]) -> None:
        self.default, self.words = default, words

    def parse(self, argument: str) -> str:
        """Return what an argument means."""
        if not argument:
            raise RefusedError(*MISSING_PARAMETER)
        if argument.upper() not in self.words:
            raise RefusedError(*ILLEGAL_VALUE)
        return self.words[argument.upper()]

    def text(self, value: str) -> str:
        """Return how a value is told."""
        return value


SWITCH = {"ON": "1", "OFF": "0", "1": "1", "0": "0"}
"""Words of a Choice that is on or off."""


class ScpiSimulator:
    """Base of simulated instruments that speak SCPI: lines that end with LF, errors in a queue, settings.

    A subclass has the text of its ``*IDN?`` reply, the ``commands`` that it knows beside those of :class:`Status`,
    ``settings`` by their canonical headers, and :meth:`execute` for what is no plain setting. Commands of one message
    are executed in turn, and their replies are one message with semicolons between them (IEEE 488.2, 8.4.1).

    Args:
        bench: the simulated bench that it is part of.

    Attributes:
        values: of the settings, by header.
        complete_at: when what was begun last is complete, by the clock: for ``*OPC`` and ``*OPC?``.
        busy: seconds that the message which is executed takes before it is answered; an :meth:`execute` sets it.
    """

    message_end = b"\n"
    identity: str
    commands: ClassVar[Commands]
    settings: Mapping[str, Number | Choice] = MappingProxyType({})

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.status = Status()
        self.outbox = Outbox(bench.clock)
        self.complete_at = 0.0
        self.busy = 0.0
        self._received = b""
        self._announces = False
        """Whether ``*OPC`` waits for the end of what was begun."""
        self.values: dict[str, float | str] = {}
        self.reset()

    def reset(self) -> None:
        """Do what ``*RST`` does."""
        self.values = {header: setting.default for header, setting in self.settings.items()}

    def execute(self, header: str, argument: str) -> str | bytes | None:  # noqa: ARG002 - for those who override
        """Carry out a command that is no plain setting, and return its reply, if it has one.

        Raises:
            KeyError: there is no such command.
            RefusedError: it is not carried out.
        """
        raise KeyError(header)

    def changed(self, header: str) -> None:
        """Do what follows from a setting that was changed."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes, and return the replies that are due."""
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self.busy = 0.0
            replies = [reply for reply in self._answers(line.decode("latin-1").strip()) if reply is not None]
            if replies:
                self.outbox.put(b";".join(replies) + b"\n", self.busy)
        return self.outbox.take()

    def clear(self) -> None:
        """Forget a half-received message and unread replies."""
        self._received = b""
        self.outbox.clear()

    def number(self, header: str) -> float:
        """Return the value of a setting that is a number."""
        return float(self.values[header])

    def _answers(self, message: str) -> list[bytes | None]:
        answers: list[bytes | None] = []
        for header, argument in self.commands.split(message):
            try:
                reply = self._answer(header, argument)
            except RefusedError as error:
                self.status.refuse((error.args[0], error.args[1]))
                continue
            answers.append(reply.encode("latin-1") if isinstance(reply, str) else reply)
        return answers

    def _answer(self, header: str | None, argument: str) -> str | bytes | None:
        if header is None:
            raise RefusedError(*UNDEFINED_HEADER)
        setting = self.settings.get(header.removesuffix("?"))
        if setting is not None and header.endswith("?"):
            return self._tell(setting, header[:-1], argument)
        if setting is not None:
            self.values[header] = setting.parse(argument)
            self.changed(header)
            return None
        tries: list[Callable[[str, str], str | bytes | None]] = [self.execute, self._common]
        for attempt in tries:
            try:
                return attempt(header, argument)
            except KeyError:
                continue
        raise RefusedError(*UNDEFINED_HEADER)

    def _common(self, header: str, argument: str) -> str | None:
        left = self.complete_at - self.bench.clock.time()
        if self._announces and left <= 0:
            self._announces = False
            self.status.execute("*OPC", "")
        if header == "*IDN?":
            return self.identity
        if header == "*OPC?":
            self.busy = max(self.busy, left)
        if header == "*OPC" and left > 0:
            self._announces = True
        elif header == "*RST":
            self.complete_at, self._announces = 0.0, False
            self.reset()
        else:
            self._announces = self._announces and header != "*CLS"
            return self.status.execute(header, argument)
        return None

    def _tell(self, setting: Number | Choice, header: str, argument: str) -> str:
        if isinstance(setting, Choice):
            return setting.text(str(self.values[header]))
        return setting.text(setting.parse(argument) if argument else self.number(header))
