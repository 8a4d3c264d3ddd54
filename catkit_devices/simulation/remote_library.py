"""One bench for several processes: a simulation on a server, and a VISA library with which other processes use it.

Devices may be spread over several server processes, but instruments that see the same light must share one bench. So
the bench and its instruments are in one process as a :class:`SharedSimulation`, an object of its server, and every
other process uses a :class:`RemoteVisaLibrary`. It forwards whole VISA operations (write these bytes and end the
message; read until a message ends or this timeout is over), so a driver sees the same bytes, ends of messages, timeouts
and lost connections as in the process of the bench.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from pyvisa.constants import StatusCode

from catkit_devices._base.clock import Clock
from catkit_devices.errors import ServerError
from catkit_devices.multiprocessing.hosted import HostedObject
from catkit_devices.multiprocessing.locks.owner import current_call
from catkit_devices.simulation.session_library import InstrumentSession, SessionLibrary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyvisa.constants import BufferOperation

    from catkit_devices.multiprocessing.locks.owner import Session as ClientSession
    from catkit_devices.simulation.faults import Fault
    from catkit_devices.simulation.visa_library import SimulatedVisaLibrary

__all__ = ["RemoteVisaLibrary", "SharedSimulation"]

_T = TypeVar("_T")

_LAST_USE = 20.0
"""Seconds that the server, when it is to end, waits for the processes that use the instruments to end."""
_LOOK = 0.05
"""Seconds between two checks whether the instruments are still in use."""

_OPERATIONS = frozenset({"clear", "flush", "read", "read_stb", "trigger", "write"})
"""What processes may do with an instrument of the simulation."""


class SharedSimulation(HostedObject):
    """The simulated instruments of one bench, for every process that has a proxy of it.

    Make it on a server, ``manager.get_object("simulation", factory)``. In addition to the methods that
    :class:`RemoteVisaLibrary` uses, it has methods for tests and tools: faults, cables, time, and :meth:`evaluate` for
    everything else. When a process ends, however it ends, the sessions that it has opened are closed. It has no mutex:
    while one process waits for a reply, others continue.

    Args:
        library: of the bench.
    """

    def __init__(self, library: SimulatedVisaLibrary) -> None:
        self._library = library
        self._sessions: dict[int, tuple[ClientSession, InstrumentSession]] = {}
        self._handles = itertools.count(1)
        self._lock = threading.Lock()

    # --- for tests and tools

    def addresses(self) -> tuple[str, ...]:
        """Return where instruments are, connected or not."""
        return self._library.addresses

    def evaluate(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run ``function(library, *arguments)`` in the process of the bench, while no instrument is used.

        Args:
            function: gets the :class:`~catkit_devices.simulation.SimulatedVisaLibrary`; ``library.bench`` is the bench
                and ``library.instrument(address)`` an instrument. Function and result are pickled.
            *arguments: further arguments.
        """
        with self._library.bench.lock:
            return function(self._library, *arguments)

    def inject(self, address: str, fault: Fault, count: int = 1, *, after: int = 0) -> None:
        """Strike ``count`` replies of the instrument at ``address``, after ``after`` replies without a fault."""
        line = self._library.line(address)
        with self._library.bench.lock:
            line.inject(fault, count, after=after)

    def clear_faults(self, address: str) -> None:
        """Remove the faults that were injected at ``address`` and have not struck yet."""
        line = self._library.line(address)
        with self._library.bench.lock:
            line.clear()

    def fault_history(self, address: str) -> list[tuple[int, str]]:
        """Return each fault that struck at ``address``: number of the write whose reply it was, and kind."""
        line = self._library.line(address)
        with self._library.bench.lock:
            return list(line.history)

    def disconnect(self, address: str) -> None:
        """Pull the cable of the instrument at ``address``."""
        self._library.disconnect(address)

    def reconnect(self, address: str) -> None:
        """Plug the cable back in."""
        self._library.reconnect(address)

    def time(self) -> float:
        """Return the time on the bench's clock, in seconds."""
        return self._library.bench.clock.time()

    def wait(self, seconds: float) -> None:
        """Wait until ``seconds`` have passed on the bench's clock, or until the call is cancelled."""
        self._library.bench.clock.wait(seconds, current_call().wait)

    # --- for RemoteVisaLibrary

    def connected(self) -> list[str]:
        """Return the addresses at which sessions can be opened."""
        return list(self._library.connected())

    def open_session(self, address: str, manager: int) -> int | StatusCode:
        """Open a session for the calling process; return its number, or the status that says why there is none."""
        session = self._library.connect(address, manager)
        if isinstance(session, StatusCode):
            return session
        with self._lock:
            number = next(self._handles)
            self._sessions[number] = (current_call().session.carrier, session)
        return number

    def close_session(self, number: int) -> None:
        """Close a session; harmless when it is closed."""
        with self._lock:
            closed = self._sessions.pop(number, None)
        if closed is not None:
            closed[1].close()

    def operate(self, number: int, operation: str, *arguments: Any) -> Any:
        """Do one operation of :class:`~catkit_devices.simulation.session_library.InstrumentSession`."""
        session = self._session(number)
        if operation not in _OPERATIONS:
            raise AttributeError(f"a session has no operation {operation!r}")
        if session is None:
            status = StatusCode.error_invalid_object
            return {"read": (b"", status), "write": (0, status), "read_stb": (0, status)}.get(operation, status)
        return getattr(session, operation)(*arguments)

    def get_attribute(self, number: int, attribute: int) -> tuple[Any, StatusCode]:
        """Return an attribute of a session, and the status, which says whether the session has it."""
        session = self._session(number)
        return (0, StatusCode.error_invalid_object) if session is None else session.attributes.get(attribute)

    def set_attribute(self, number: int, attribute: int, value: Any) -> StatusCode:
        """Set an attribute of a session; return whether that was possible."""
        session = self._session(number)
        return StatusCode.error_invalid_object if session is None else session.attributes.set(attribute, value)

    # --- called by the server

    def _session(self, number: int) -> InstrumentSession | None:
        with self._lock:
            found = self._sessions.get(number)
        return None if found is None else found[1]

    def _server_stops_(self) -> None:
        """Wait, within a bounded time, until no instrument is in use: their devices are being made safe.

        The process that started the server does not count: it is ending the server now, and waits for that.
        """
        deadline = time.monotonic() + _LAST_USE
        while time.monotonic() < deadline:
            with self._lock:
                users = {owner.pid for owner, _session in self._sessions.values()}
            if users <= {os.getppid()}:
                return
            time.sleep(_LOOK)

    def _session_ended_(self, session: ClientSession, goodbye: bool) -> None:  # noqa: ARG002 - the server's call
        """Close the sessions of the process that has ended."""
        with self._lock:
            ended = [number for number, (owner, _session) in self._sessions.items() if owner is session]
        for number in ended:
            self.close_session(number)


class RemoteVisaLibrary(SessionLibrary):
    """A VISA library whose instruments are simulated in another process, or in this one behind a proxy.

    Args:
        simulation: a :class:`SharedSimulation`, or a proxy of one.

    Attributes:
        bench: what this process can know of the bench: its ``clock``.
    """

    def __init__(self, simulation: Any) -> None:
        super().__init__()
        self._simulation = simulation
        self.bench = _RemoteBench(simulation)

    def connected(self) -> Iterable[str]:
        """Return the addresses at which the server's library can open sessions."""
        addresses: list[str] = self._simulation.connected()
        return addresses

    def connect(self, address: str, manager: int) -> InstrumentSession | StatusCode:
        """Open a session on the server, or return the status that says why there is none."""
        opened: int | StatusCode = self._simulation.open_session(address, int(manager))
        return opened if isinstance(opened, StatusCode) else _RemoteSession(self._simulation, opened)


class _RemoteSession:
    """A session in the process of the simulation; every operation is one call to it."""

    def __init__(self, simulation: Any, number: int) -> None:
        self._simulation = simulation
        self._number = number
        self.attributes = _RemoteAttributes(simulation, number)

    def close(self) -> None:
        with contextlib.suppress(ServerError):  # the server has ended, which closed the session
            self._simulation.close_session(self._number)

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        written: tuple[int, StatusCode] = self._simulation.operate(self._number, "write", data)
        return written

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        found: tuple[bytes, StatusCode] = self._simulation.operate(self._number, "read", count)
        return found

    def clear(self) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "clear"))

    def flush(self, mask: BufferOperation) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "flush", mask))

    def read_stb(self) -> tuple[int, StatusCode]:
        found: tuple[int, StatusCode] = self._simulation.operate(self._number, "read_stb")
        return found

    def trigger(self) -> StatusCode:
        return StatusCode(self._simulation.operate(self._number, "trigger"))


class _RemoteAttributes:
    def __init__(self, simulation: Any, number: int) -> None:
        self._simulation = simulation
        self._number = number

    def get(self, attribute: int) -> tuple[Any, StatusCode]:
        found: tuple[Any, StatusCode] = self._simulation.get_attribute(self._number, int(attribute))
        return found

    def set(self, attribute: int, value: Any) -> StatusCode:
        return StatusCode(self._simulation.set_attribute(self._number, int(attribute), value))


class _RemoteBench:
    def __init__(self, simulation: Any) -> None:
        self.clock = _RemoteClock(simulation)


class _RemoteClock(Clock):
    """The clock of the simulation's process."""

    def __init__(self, simulation: Any) -> None:
        self._simulation = simulation

    def time(self) -> float:
        return float(self._simulation.time())

    def wait(self, seconds: float, sleep: Callable[[float], object] | None = None) -> None:  # noqa: ARG002 - not needed
        self._simulation.wait(seconds)  # a call to a server can be interrupted

    def step(self, waited: float) -> float:  # noqa: ARG002 - waits happen in the process of the simulation
        return 0.01
