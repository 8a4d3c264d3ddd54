"""Devices whose instrument is at a VISA address, for drivers of this framework and of others."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices._base.deferred import Watched, done
from catkit_devices._base.timeouts import default_timeout
from catkit_devices._device.members import hook
from catkit_devices._device.settings import Pattern, Seconds
from catkit_devices._wire.address import is_expression, matching
from catkit_devices._wire.byte_stream import simulated_clock
from catkit_devices._wire.exchange import Exchanges, Transport
from catkit_devices.device import Device
from catkit_devices.errors import DeviceError, DeviceOpenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from pyvisa.highlevel import VisaLibraryBase

    from catkit_devices._wire.byte_stream import Line
    from catkit_devices.multiprocessing.locks.owner import Call

__all__ = ["WireDevice"]

_SLICE = 0.1
"""Seconds after which a wait that holds the wire looks again whether somebody needs the wire to make a device safe."""


class WireDevice(Device):
    """A device with a wire: an address, which it shares with other devices, and exchanges that may go wrong.

    Args:
        name: the device's name.
        address: a VISA address, or a VISA resource expression that applies to one instrument only.
        visa_library: ``"@py"`` (pyvisa-py), ``"@ivi"`` (the vendor's), or a pyvisa library object: a simulation.
        late_window: seconds by which a reply may be late.
        serial_number: a regular expression that the reply to ``*IDN?`` must contain, too. If ``address`` is an
            expression that applies to several instruments, each is asked.
        **options: of :class:`~catkit_devices.device.Device`.
    """

    io_timeout: ClassVar[Seconds] = 2.0
    """Seconds for sending, until a reply begins, and then for each 256 bytes of it. So a long reply may take longer
    while it flows. One that comes in drops is given up; one that does not end is given up after 256 MiB. Where it is
    not told what has come (USB, GPIB, LAN, and sockets through the library of a vendor) it is the time for each 20 KiB,
    as for a read of pyvisa."""

    identity: ClassVar[Pattern] = "."
    """A regular expression that is searched for, whatever the case, in the reply to ``*IDN?``."""

    _exchanges_: Exchanges
    """Its exchanges with the instrument; a dialogue that is written in a test asks why the line is recovered."""

    def __init__(
        self,
        name: str,
        *,
        address: str,
        visa_library: str | VisaLibraryBase = "@py",
        late_window: float = 1.0,
        serial_number: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, **options)
        self._wanted_ = address
        self._serial_number_ = _checked_pattern(serial_number)
        self._checked_ = False
        """Whether the driver has passed on the instrument's identity to be checked."""
        late_window = default_timeout(late_window, f"device {name!r}, a late reply")
        self._exchanges_ = Exchanges(self, self._life_, address, late_window)
        self._life_.share_connection(self._exchanges_.replaced_at)
        self._visa_library_ = visa_library
        self._clock_ = simulated_clock(visa_library)

    @hook
    def _identify(self) -> None:
        """Make sure that the right instrument answers; called after opening and whenever the line was suspect.

        Raises:
            DeviceOpenError: something else answers.
            DeviceError: nothing does.
        """
        raise NotImplementedError(f"driver {type(self).__qualname__} must implement _identify()")

    def _settings_(self) -> Mapping[str, Any]:
        """Return the attributes of pyvisa's resource that are set if it is a serial port."""
        return {}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Hold the wire for several exchanges that belong together, against every device at the same address.

        ``with self._transaction(): ...``; each exchange in the block is one of its own, with its own errors. Nothing
        else reaches the instrument in between, so keep it short.
        """
        with self._exchanges_.hold(self._exchanges_.opened(), "a transaction"):
            yield

    _transaction_ = _transaction

    def _exchange(self, command: str | bytes | None, *, fresh: bool = True) -> AbstractContextManager[Line]:
        """Hold the wire for one question and its answer, which may be written and read in several parts.

        ``with self._exchange(command): ...``. When the block begins, nothing from before is left that could be taken
        for the answer: if something is, or if the last exchange went wrong, the line is recovered first, and
        :meth:`_identify` must succeed. In the block, errors of VISA become DeviceErrors, and so does a ValueError that
        the driver raises for a reply that makes no sense: a DeviceProtocolError. Any error that ends the block has the
        line recovered before the next exchange. An exchange within an exchange is a part of it.

        Args:
            command: named in errors; it is not sent.
            fresh: whether the line is recovered if bytes are waiting to be read when it begins.

        Returns:
            A context manager that gives the line, which drivers rarely need: in the block, use ``_write_bytes``,
            ``_read_bytes``, ``_read_until``, ``_write`` and ``_read``.
        """
        return self._exchanges_.exchange(command, fresh=fresh)

    _exchange_ = _exchange

    def _distrust(self, reason: str) -> None:
        """Mark the line, so that it is recovered before the next exchange."""
        if self._exchanges_.transport is not None:
            self._exchanges_.transport.doubt(reason)

    _distrust_ = _distrust

    def _check_identity(self, reply: str) -> None:
        """Raise DeviceOpenError unless ``reply`` matches :attr:`identity`, and the serial number that was given."""
        self._checked_ = True
        if not re.search(self.identity, reply, re.IGNORECASE):
            raise DeviceOpenError(
                f"an instrument that calls itself {self.identity!r} was expected, found {reply!r}", **self._facts_()
            )
        if self._serial_number_ is not None and not re.search(self._serial_number_, reply):
            raise DeviceOpenError(
                f"an instrument with {self._serial_number_!r} in its identity was expected, found {reply!r}",
                **self._facts_(),
            )

    _check_identity_ = _check_identity

    @property
    def _address_(self) -> str | None:
        return self._exchanges_.address

    def _open(self) -> Transport:
        if is_expression(self._wanted_):
            self._exchanges_.address = self._wanted_
            self._exchanges_.address = self._found_()
        return self._exchanges_.open(self._join_line_)

    def _found_(self) -> str:
        """Return the address of the one instrument to which the expression applies.

        Raises:
            DeviceOpenError: there is none, or more than one; says what was found.
        """
        try:
            listed = Transport.listed(self._visa_library_)
            found = matching(listed, self._wanted_)
        except Exception as error:  # whatever layers of pyvisa raise
            raise DeviceOpenError(f"instruments cannot be looked for: {error}", **self._facts_()) from error
        if len(found) == 1:
            return found[0]
        if not found:
            there = ", ".join(listed) or "none at all"
            raise DeviceOpenError(
                f"found no instrument to which {self._wanted_!r} applies; this VISA library finds {there} (it cannot "
                "find those that are reached through a plain socket)",
                **self._facts_(),
            )
        answers = {address: self._answer_at_(address) for address in found}
        right = [address for address, problem in answers.items() if problem is None]
        if len(right) == 1:
            return right[0]
        self._exchanges_.address = self._wanted_
        told = "; ".join(f"{address}: {problem or 'the right kind'}" for address, problem in answers.items())
        raise DeviceOpenError(
            f"found {len(right) or 'no'} right instruments to which {self._wanted_!r} applies, expected one: say more "
            f"in the address, or give serial_number ({told})",
            **self._facts_(),
        )

    def _answer_at_(self, address: str) -> str | None:
        """Open an address; return why the instrument there is not the right one, None if it is."""
        self._exchanges_.address = address
        try:
            self._exchanges_.open(self._join_line_)
        except DeviceError as error:
            return error.problem
        self._exchanges_.close()
        return None

    def _close(self) -> None:
        self._exchanges_.close()

    def _is_connected_(self) -> bool:
        return self._exchanges_.transport is not None

    def _line_is_lost_(self) -> bool:
        return self._exchanges_.is_lost()

    def _require_identity_(self) -> None:
        self._checked_ = False
        what = f"{type(self).__qualname__}._identify"
        with Watched(what):
            done(self._identify(), what)
        if self._serial_number_ is not None and not self._checked_:
            raise DeviceOpenError(
                "serial_number cannot be used: the driver does not ask the instrument for its identity",
                **self._facts_(),
            )

    def _checkpoint(self) -> None:
        self._exchanges_.checkpoint()

    _checkpoint_ = _checkpoint

    def _may_give_way_(self, chain: object) -> bool:
        transport = self._exchanges_.transport
        return super()._may_give_way_(chain) and not (transport is not None and transport.held_by(chain))

    def _sleep_(self, call: Call, seconds: float) -> None:
        transport = self._exchanges_.transport
        if transport is None or not transport.held_by(call.chain):
            super()._sleep_(call, seconds)
            return
        # The wire is held here, so this wait must end at once if the wire is needed to make a device safe.
        left = seconds
        while left > 0:
            super()._sleep_(call, min(left, _SLICE))
            self._checkpoint_()
            left -= _SLICE

    def _in_the_way_(self) -> str:
        transport = self._exchanges_.transport
        return "" if transport is None else transport.in_use()

    def _make_safe_in_doubt_(self) -> None:
        self._exchanges_.hurried(super()._make_safe_in_doubt_)

    def _join_line_(self) -> Transport:
        return Transport.acquire(self._visa_library_, self._exchanges_.address, self._settings_())


def _checked_pattern(pattern: str | None) -> str | None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"serial_number must be a regular expression, got {pattern!r}: {error}") from None
    return pattern
