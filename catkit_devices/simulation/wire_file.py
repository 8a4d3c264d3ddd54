r"""Recordings of the bytes on a wire, as text: people can read it, and every byte is exact.

::

    # catkit_devices wire recording 1
    # address: ASRL3::INSTR
      0.000000 ! open
      0.000412 > pos?\r
      0.001250 < pos?\r3\r>\x20

Each line is one entry: seconds since the recording began, a direction, and bytes. ``>`` was sent to the instrument and
``<`` came from it; ``!`` is another event (``open``, ``close``, ``clear``, ``trigger``, and ``status`` with the status
byte in decimal, where it differs from the one before). Bytes are printable ASCII, with ``\r``, ``\n``,
``\t``, ``\\`` and ``\xNN`` for everything else and for spaces at the ends of a line. A line that ends with a single
``\`` is continued by the next one. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["EVENTS", "HEADER", "Entry", "escape", "read_entries", "unescape"]

HEADER = "# catkit_devices wire recording 1"
"""The first line of a file; the number is that of the format."""

EVENTS = frozenset({"clear", "close", "open", "trigger"})
"""Events other than bytes, without ``status``, which has a number."""

_SPELT = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x5C: "\\\\"}
"""Bytes that are written as an escape of two characters."""
_MEANT = {"t": b"\t", "n": b"\n", "r": b"\r", "\\": b"\\"}
"""The same, for reading."""
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([tnr\\]))|([^\\])")
"""An escape in a line, or another character that stands for itself."""
_STATUS = re.compile(rb"status (\d{1,3})")
"""The event that has a number: what VISA reported."""
_LINE = re.compile(r"\s*(?P<time>\d+(?:\.\d+)?) (?P<kind>[<>!])(?: (?P<text>.*))?")
"""A line of a file: seconds since the beginning, direction, and the bytes or the event."""


@dataclass(frozen=True)
class Entry:
    """One entry of a recording.

    Attributes:
        kind: ``">"``, ``"<"`` or ``"!"``.
        data: the bytes, or the name of what happened.
        time: seconds since the recording began.
        line: where it is in its file, from 1; 0 if there is none.
    """

    kind: str
    data: bytes
    time: float = 0.0
    line: int = 0

    @property
    def status(self) -> int | None:
        """The status byte that was read, 0 to 255; None if it is something else."""
        found = _STATUS.fullmatch(self.data) if self.kind == "!" else None
        return int(found[1]) if found is not None and int(found[1]) < 256 else None

    def __str__(self) -> str:
        return f"{self.kind} {escape(self.data)}"


def escape(data: bytes, *, whole: bool = True) -> str:
    """Return bytes as they are written in a recording.

    Args:
        data: the bytes.
        whole: whether they are all bytes of a line: then spaces at its ends are escaped.
    """
    text = "".join(_SPELT.get(byte) or (chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}") for byte in data)
    if not whole:
        return text
    if text.startswith(" "):
        text = "\\x20" + text[1:]
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def unescape(text: str) -> bytes:
    """Return the bytes that :func:`escape` has written so.

    Raises:
        ValueError: it was not written so.
    """
    data = bytearray()
    position = 0
    while position < len(text):
        found = _ESCAPE.match(text, position)
        if found is None or not text[position].isascii():
            raise ValueError(f"{text[position : position + 4]!r} is neither printable ASCII nor a known escape")
        number, letter, plain = found.groups()
        data += bytes([int(number, 16)]) if number else _MEANT[letter] if letter else plain.encode("ascii")
        position = found.end()
    return bytes(data)


def read_entries(path: Path | str) -> list[Entry]:
    """Return the entries of a recording.

    Raises:
        ConfigurationError: it cannot be read, or is not a recording; the message says in which line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", file=str(file)) from error
    lines = text.split("\n")
    if lines[0].rstrip() != HEADER:
        raise ConfigurationError(f"is not a recording: its first line should be {HEADER!r}", file=str(file))
    entries = []
    for number, line in _joined(lines):
        try:
            entries.append(_entry(line, number))
        except ValueError as error:
            raise ConfigurationError(f"line {number}: {error}", file=str(file)) from error
    return entries


def _joined(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Return whole entries with the numbers of their first lines."""
    begun, start = "", 0
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not begun and (not stripped or stripped.startswith("#")):
            continue
        start = start if begun else number
        if _goes_on(stripped):
            begun += stripped[:-1]
            continue
        yield start, begun + stripped
        begun = ""
    if begun:  # the recording process was killed in the middle of an entry
        yield start, begun


def _goes_on(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _entry(line: str, number: int) -> Entry:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"expected seconds, one of < > ! and bytes, got {line[:60]!r}")
    entry = Entry(found["kind"], unescape(found["text"] or ""), float(found["time"]), number)
    if entry.kind == "!" and entry.status is None and entry.data.decode("latin-1") not in EVENTS:
        known = ", ".join(sorted(EVENTS))
        raise ValueError(
            f"expected one of {known}, or 'status' and a byte in decimal, after '!', got {found['text']!r}"
        )
    return entry
