"""The functions of a VISA library that pyvisa calls, on top of sessions that a subclass opens.

Two subclasses reach simulated instruments: :class:`~catkit_devices.simulation.visa_library.SimulatedVisaLibrary` in
this process, and :class:`~catkit_devices.simulation.remote_library.RemoteVisaLibrary` in another process.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from typing import TYPE_CHECKING, Any, Protocol, cast

from pyvisa import VisaIOError, constants, highlevel, rname
from pyvisa.constants import StatusCode
from pyvisa.typing import VISARMSession, VISASession

from catkit_devices.errors import SimulationError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from pyvisa.util import DebugInfo

__all__ = ["InstrumentSession", "SessionAttributes", "SessionLibrary"]


class SessionAttributes(Protocol):
    """The attributes of one session, for ``viGetAttribute`` and ``viSetAttribute``."""

    def get(self, attribute: int) -> tuple[Any, StatusCode]:
        """Return the value of an attribute, and whether this kind of session has it."""
        ...

    def set(self, attribute: int, value: Any) -> StatusCode:
        """Set an attribute, and return whether that was possible."""
        ...


class InstrumentSession(Protocol):
    """One open session on one instrument. Its methods return a status if there is one, and do not raise."""

    @property
    def attributes(self) -> SessionAttributes:
        """The attributes of the session."""
        ...

    def close(self) -> None:
        """Close the session."""
        ...

    def write(self, data: bytes) -> tuple[int, StatusCode]:
        """Send ``data``; return how many bytes were sent."""
        ...

    def read(self, count: int) -> tuple[bytes, StatusCode]:
        """Return up to ``count`` bytes, as soon as one of VISA's rules ends the read."""
        ...

    def clear(self) -> StatusCode:
        """Discard what arrived, and clear the instrument where the interface can."""
        ...

    def flush(self, mask: constants.BufferOperation) -> StatusCode:
        """Discard what arrived, if ``mask`` says so."""
        ...

    def read_stb(self) -> tuple[int, StatusCode]:
        """Return the status byte."""
        ...

    def trigger(self) -> StatusCode:
        """Trigger the instrument."""
        ...


class SessionLibrary(highlevel.VisaLibraryBase):
    """A VISA library; a subclass says which instruments there are and opens sessions on them.

    Safe to use from several threads. What VISA knows but laboratories rarely use (VISA's own locks, events, register
    access) reports VI_ERROR_NSUP_OPER; exclusive access is not enforced, as in pyvisa-py.

    Attributes:
        machine_wide: False: another process that uses the same address has another instrument there.
    """

    machine_wide = False

    def __new__(cls, *_args: Any, **_options: Any) -> Self:  # noqa: D102 - pyvisa keeps one library for each path
        return cast("Self", super().__new__(cls, f"simulation-{uuid.uuid4().hex}"))

    def __init__(self) -> None:
        self._sessions: dict[int, InstrumentSession] = {}
        self._managers: set[int] = set()
        self._handles = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def open_sessions(self) -> int:
        """How many sessions on instruments are open."""
        return len(self._sessions)

    # --- what a subclass implements

    def connected(self) -> Iterable[str]:
        """Return the addresses at which sessions can be opened."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement connected()")

    def connect(self, address: str, manager: int) -> InstrumentSession | StatusCode:
        """Open a session for the resource manager ``manager``; return a status if that is impossible."""
        raise NotImplementedError(f"{type(self).__qualname__} must implement connect()")

    # --- what pyvisa calls

    @staticmethod
    def get_debug_info() -> DebugInfo:
        """Return what ``pyvisa-info`` prints."""
        return ["Simulated instruments of catkit_devices"]

    def open_default_resource_manager(self) -> tuple[VISARMSession, StatusCode]:
        """Open a session of the resource manager (viOpenDefaultRM)."""
        with self._lock:
            handle = next(self._handles)
            self._managers.add(handle)
        return VISARMSession(handle), self.handle_return_value(VISARMSession(handle), StatusCode.success)

    def list_resources(self, session: VISARMSession, query: str = "?*::INSTR") -> tuple[str, ...]:  # noqa: ARG002 - pyvisa calls so
        """Return the addresses of the connected instruments that match ``query`` (viFindRsrc)."""
        return rname.filter(list(self.connected()), query)

    def open(
        self,
        session: VISARMSession,
        resource_name: str,
        access_mode: constants.AccessModes = constants.AccessModes.no_lock,  # noqa: ARG002 - pyvisa calls so
        open_timeout: int = constants.VI_TMO_IMMEDIATE,  # noqa: ARG002 - pyvisa calls so
    ) -> tuple[VISASession, StatusCode]:
        """Open a session on an instrument (viOpen); there must be one, and it must be connected."""
        opened = self.connect(resource_name, session)
        if isinstance(opened, StatusCode):
            return VISASession(0), self.handle_return_value(None, opened)
        with self._lock:
            handle = VISASession(next(self._handles))
            self._sessions[handle] = opened
        return handle, self.handle_return_value(handle, StatusCode.success)

    def close(self, session: Any) -> StatusCode:
        """Close a session of any kind (viClose)."""
        with self._lock:
            known = session in self._managers
            self._managers.discard(session)
            opened = self._sessions.pop(session, None)
        if opened is not None:
            opened.close()
        elif not known:
            return self.handle_return_value(None, StatusCode.error_invalid_object)
        self._last_status_in_session.pop(session, None)  # pyvisa would keep it for ever
        self._ignore_warning_in_session.pop(session, None)
        return self.handle_return_value(None, StatusCode.success)

    def read(self, session: VISASession, count: int) -> tuple[bytes, StatusCode]:
        """Read up to ``count`` bytes (viRead); an error has the bytes that came before it in ``received``."""
        data, status = self._session(session).read(count)
        try:
            return data, self.handle_return_value(session, status)
        except VisaIOError as error:
            error.received = data  # type: ignore[attr-defined]  # an attribute of our own
            raise

    def write(self, session: VISASession, data: bytes) -> tuple[int, StatusCode]:
        """Write ``data`` (viWrite)."""
        written, status = self._session(session).write(bytes(data))
        return written, self.handle_return_value(session, status)

    def clear(self, session: VISASession) -> StatusCode:
        """Clear the instrument and what arrived from it (viClear)."""
        return self.handle_return_value(session, self._session(session).clear())

    def flush(self, session: VISASession, mask: constants.BufferOperation) -> StatusCode:
        """Discard buffers (viFlush)."""
        return self.handle_return_value(session, self._session(session).flush(mask))

    def read_stb(self, session: VISASession) -> tuple[int, StatusCode]:
        """Read the status byte (viReadSTB)."""
        value, status = self._session(session).read_stb()
        return value, self.handle_return_value(session, status)

    def assert_trigger(self, session: VISASession, protocol: constants.TriggerProtocol) -> StatusCode:  # noqa: ARG002 - pyvisa calls so
        """Trigger the instrument (viAssertTrigger)."""
        return self.handle_return_value(session, self._session(session).trigger())

    def get_attribute(self, session: Any, attribute: Any) -> tuple[Any, StatusCode]:
        """Read an attribute of a session (viGetAttribute)."""
        value, status = self._session(session).attributes.get(attribute)
        return value, self.handle_return_value(session, status)

    def set_attribute(self, session: VISASession, attribute: Any, attribute_state: Any) -> StatusCode:
        """Set an attribute of a session (viSetAttribute)."""
        status = self._session(session).attributes.set(attribute, attribute_state)
        return self.handle_return_value(session, status)

    def disable_event(self, session: VISASession, event_type: Any, mechanism: Any) -> StatusCode:  # noqa: ARG002 - pyvisa calls so
        """Do nothing: no event is ever enabled. pyvisa calls this when it closes a resource."""
        return self.handle_return_value(session, StatusCode.success)

    discard_events = disable_event

    def enable_event(self, session: VISASession, *_arguments: Any) -> StatusCode:
        """Refuse: there are no events."""
        return self._unsupported(session)

    def wait_on_event(self, session: VISASession, *_arguments: Any) -> Any:
        """Refuse: there are no events."""
        return self._unsupported(session)

    def lock(self, session: VISASession, *_arguments: Any) -> Any:
        """Refuse: VISA's own locks are not simulated; most real backends lack them too."""
        return self._unsupported(session)

    def unlock(self, session: VISASession) -> StatusCode:
        """Refuse, as :meth:`lock` does."""
        return self._unsupported(session)

    def gpib_control_ren(self, session: VISASession, mode: Any) -> StatusCode:  # noqa: ARG002 - pyvisa calls so
        """Accept, and do nothing: a simulated instrument is always in remote control."""
        return self.handle_return_value(session, StatusCode.success)

    def _unsupported(self, session: VISASession) -> StatusCode:
        return self.handle_return_value(session, StatusCode.error_nonsupported_operation)

    def _session(self, handle: int) -> InstrumentSession:
        with self._lock:
            session = self._sessions.get(handle)
        if session is None:
            self.handle_return_value(None, StatusCode.error_invalid_object)  # raises
            raise SimulationError(f"no session {handle} is open")
        return session
