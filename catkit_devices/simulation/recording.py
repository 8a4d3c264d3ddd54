"""Records the bytes between a program and its instruments, real or simulated."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pyvisa import constants, rname
from pyvisa.constants import StatusCode

from catkit_devices._wire.address import is_expression, matching, normalise
from catkit_devices._wire.passing_library import PassingVisaLibrary
from catkit_devices.simulation.resource import STREAMS
from catkit_devices.simulation.wire_file import HEADER, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyvisa import highlevel
    from pyvisa.constants import AccessModes, TriggerProtocol
    from pyvisa.typing import VISARMSession, VISASession

__all__ = ["Recording", "RecordingVisaLibrary", "Recordings", "file_name"]

_GAP = 0.1
"""Seconds without bytes within a reply, after which the rest is written on a new line: so the pause can be seen."""

_WIDTH = 100
"""Characters after which an entry is continued on the next line."""

_INDENT = " " * 13
"""As wide as the part of a line before the bytes: time, sign, spaces."""


class Recording:
    """The recording of one instrument's bytes, written to its file at once.

    The file is opened for the first entry, and closed by :meth:`close`. The next entry opens it again and is appended.

    Args:
        path: of the file; an existing recording is continued.
        address: of the instrument, as information for people who read the file.
        clock: returns seconds.
        messages: whether the interface marks the ends of messages.
    """

    def __init__(self, path: Path, address: str, clock: Callable[[], float], *, messages: bool) -> None:
        self._path = path
        self._address = address
        self._messages = messages
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()
        self._column = 0
        self._open_reply = False
        self._last_read = 0.0
        self._status: int | None = None
        self._file: TextIO | None = None

    def sent(self, data: bytes) -> None:
        """Record what was sent to the instrument."""
        with self._lock:
            self._status = None
            self._begin(">")
            self._add(data)
            self._end()

    def received(self, data: bytes, *, end: bool) -> None:
        """Record what was read; ``end`` says whether a message ended with it, where there are messages."""
        with self._lock:
            now = self._clock()
            pause = not self._messages and now - self._last_read > _GAP
            if not self._open_reply or pause:
                self._begin("<")
            self._add(data)
            self._last_read = now
            self._open_reply = True
            if end and self._messages:
                self._end()

    def happened(self, event: str) -> None:
        """Record an event other than bytes."""
        if event == "clear" and not self._messages:
            return  # here it only discards what has arrived; nothing is sent to the instrument
        with self._lock:
            self._begin("!")
            self._add(event.encode("ascii"))
            self._end()

    def status(self, value: int) -> None:
        """Record a status byte, if it differs from the last one since something was sent."""
        if value != self._status:
            self._status = value
            self.happened(f"status {value}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._end()
            if self._file is not None:
                self._file.close()
                self._file = None

    def _begin(self, kind: str) -> None:
        self._end()
        if self._file is None:
            self._open()
        self._column = self._write(f"{self._clock() - self._start:10.6f} {kind} ")

    def _add(self, data: bytes) -> None:
        while data:
            if self._column > _WIDTH:
                self._column = self._write("\\\n" + _INDENT) - 2
            count = _fitting(data, _WIDTH - self._column)
            self._column += self._write(escape(data[:count]))
            data = data[count:]

    def _end(self) -> None:
        if self._column:
            self._write("\n")
        self._column = 0
        self._open_reply = False

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        if self._file.tell() == 0:
            when = datetime.now(UTC).isoformat(timespec="seconds")
            self._write(f"{HEADER}\n# address: {self._address}\n# recorded: {when}\n")

    def _write(self, text: str) -> int:
        if self._file is None:
            return 0
        self._file.write(text)
        self._file.flush()  # so that it is in the file even if this process is killed
        return len(text)


class Recordings:
    """The recordings of several instruments. Each is made when its address is opened for the first time.

    Args:
        files: a directory, which gets one file for each address; or the file of each address that is to be recorded.
        clock: returns seconds.
    """

    def __init__(self, files: Path | Mapping[str, Path], clock: Callable[[], float]) -> None:
        self._files: Path | dict[str, Path] = files if isinstance(files, Path) else {}
        self._found: dict[str, Path] = {}
        """The files of what is found by an expression."""
        if not isinstance(files, Path):
            self._found = {address: file for address, file in files.items() if is_expression(address)}
            self._files = {normalise(address): files[address] for address in files if address not in self._found}
        self._clock = clock
        self._by_address: dict[str, Recording] = {}
        self._by_session: dict[int, Recording] = {}
        self._lock = threading.Lock()

    def opened(self, session: int, address: str) -> None:
        """Record that ``session`` was opened at ``address``."""
        canonical = normalise(address)
        with self._lock:
            recording = self._by_address.get(canonical) or self._make(canonical)
            if recording is not None:
                self._by_session[session] = recording
                recording.happened("open")

    def closed(self, session: int) -> None:
        """Record that ``session`` was closed."""
        with self._lock:
            recording = self._by_session.pop(session, None)
            if recording is not None:
                recording.happened("close")
                if recording not in self._by_session.values():
                    recording.close()

    def of(self, session: int) -> Recording | None:
        """Return the recording of the instrument of ``session``, or None if it is not recorded."""
        return self._by_session.get(session)

    def _make(self, address: str) -> Recording | None:
        if isinstance(self._files, Path):
            path: Path | None = self._files / file_name(address)
        else:
            found = (file for expression, file in self._found.items() if matching([address], expression))
            path = self._files.get(address) or next(found, None)
        if path is None:
            return None
        parsed = rname.ResourceName.from_string(address)
        kind = (parsed.interface_type_const, parsed.resource_class)
        self._by_address[address] = Recording(path, address, self._clock, messages=kind not in STREAMS)
        return self._by_address[address]


class RecordingVisaLibrary(PassingVisaLibrary):
    """A VISA library that passes everything on to another one, and records the bytes.

    ``pyvisa.ResourceManager(RecordingVisaLibrary("@py", Path("recordings")))`` works in any program that uses pyvisa;
    drivers of this project take it as their ``visa_library``. It records what the program sends and what it reads.
    Bytes that the program never reads, or discards unread, are not recorded.

    Args:
        library: ``"@py"``, ``"@ivi"``, or a library object; for a simulation, times are those of its own clock.
        files: a directory, which gets one file for each address that is opened; or the file of each address that is
            to be recorded. Files that exist are continued.
    """

    recordings: Recordings

    def __init__(self, library: str | highlevel.VisaLibraryBase, files: Path | Mapping[str, Path]) -> None:
        super().__init__(library)
        clock = getattr(getattr(self._inner, "bench", None), "clock", None)
        self.recordings = Recordings(files, time.monotonic if clock is None else clock.time)

    def open(
        self,
        session: VISARMSession,
        resource_name: str,
        access_mode: AccessModes = constants.AccessModes.no_lock,
        open_timeout: int = constants.VI_TMO_IMMEDIATE,
    ) -> tuple[VISASession, StatusCode]:
        """Open a session (viOpen)."""
        opened, status = self._inner.open(session, resource_name, access_mode, open_timeout)
        self.recordings.opened(opened, resource_name)
        return opened, status

    def close(self, session: Any) -> StatusCode:
        """Close a session of any kind (viClose)."""
        self.recordings.closed(session)
        return self._inner.close(session)

    def write(self, session: VISASession, data: bytes) -> tuple[int, StatusCode]:
        """Write ``data`` (viWrite)."""
        recording = self.recordings.of(session)
        if recording is not None:  # before the write: a reply that another thread reads must come after it in the file
            recording.sent(bytes(data))
        return self._inner.write(session, data)

    def read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """Read up to ``count`` bytes (viRead)."""
        data, status = self._inner.read(session, count)
        recording = self.recordings.of(session)
        if recording is not None and data:
            recording.received(bytes(data), end=status != StatusCode.success_max_count_read)
        return data, status

    def clear(self, session: VISASession) -> StatusCode:
        """Clear the instrument and what arrived from it (viClear)."""
        status = self._inner.clear(session)
        recording = self.recordings.of(session)
        if recording is not None:
            recording.happened("clear")
        return status

    def read_stb(self, session: VISASession) -> tuple[int, StatusCode]:
        """Read the status byte (viReadSTB)."""
        value, status = self._inner.read_stb(session)
        recording = self.recordings.of(session)
        if recording is not None and status >= StatusCode.success:
            recording.status(value)
        return value, status

    def assert_trigger(self, session: VISASession, protocol: TriggerProtocol) -> StatusCode:
        """Trigger the instrument (viAssertTrigger)."""
        status = self._inner.assert_trigger(session, protocol)
        recording = self.recordings.of(session)
        if recording is not None:
            recording.happened("trigger")
        return status


def _fitting(data: bytes, room: int) -> int:
    """Return how many bytes fill ``room`` characters; at least one."""
    used = count = 0
    while count < len(data) and used <= room:
        used += len(escape(data[count : count + 1]))
        count += 1
    return count


def file_name(address: str) -> str:
    """Return a name for the recording of what is at ``address``: ``ASRL3_INSTR.wire``."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", address).strip("_") + ".wire"
