"""The calls of Newport's XPS motion controllers: XPS-C8, XPS-Q8, XPS-D.

TCP port 5001. The text of a function call is sent, with the types of its results in their places (``double *``). The
reply is ``error,results,EndOfAPI``, and after an error it repeats the call. A connection that has not answered yet
takes no other call, and a motion is answered when it has ended. So each motion has a connection of its own.

Source: Newport XPS-Q8 User's Manual and Programmer's Manual (TCP/IP); PyPI newportxps ``XPS_C8_drivers.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from catkit_devices.errors import ConfigurationError, DeviceProtocolError
from catkit_devices.visa import VisaDevice

__all__ = ["XpsController", "go"]

_UNITS = ("mm", "deg")
"""Units that a positioner may have: of linear stages, and of rotation stages."""


class XpsController(VisaDevice):
    """A VisaDevice for the calls of an XPS controller; ``_query`` returns the results of one.

    Args:
        name: the device's name.
        groups: the groups, by the names that they have in the controller's configuration. For each group, the names
            of its positioners with their units, ``"mm"`` or ``"deg"``:
            ``{"Group1": {"Pos": "deg"}, "XY": {"X": "mm", "Y": "mm"}}``.
        **options: of :class:`~catkit_devices.visa.VisaDevice`.
    """

    identity = "XPS"
    read_termination = ",EndOfAPI"
    write_termination = ""

    def __init__(self, name: str, *, groups: Mapping[str, Mapping[str, str]], **options: Any) -> None:
        super().__init__(name, **options)
        if not _is_layout(groups):
            raise ConfigurationError(
                "groups must be the positioners of each group, with their units mm or deg, such as "
                f"{{'XY': {{'X': 'mm', 'Y': 'mm'}}}}, got {groups!r}",
                key=f"devices.{name}.groups",
            )
        self._layout = {group: dict(positioners) for group, positioners in groups.items()}
        """The units of the positioners of each group."""

    def _identify(self) -> None:
        self._check_identity(self._query("FirmwareVersionGet(char *)"))

    def _query(self, command: str, timeout: float | None = None) -> str:
        """Call a function of the controller, and return its results.

        Raises:
            DeviceProtocolError: the controller reports an error; says which.
        """
        return self._results(command, *self._answer(command, timeout))

    def _make_safe(self) -> None:
        """Stop every group, which each group does by itself; one that is homing must be homed again."""

    def _answer(self, call: str, timeout: float | None = None) -> tuple[int, str]:
        with self._exchange(call):
            return _parsed(call, super()._query(call, timeout))

    def _results(self, call: str, error: int, results: str) -> str:
        if error:
            _error, text = self._answer(f"ErrorStringGet({error},char *)")
            raise DeviceProtocolError(f"the controller reports error {error}: {text}", **self._facts(call))
        return results


def go(part: Any, call: str, seconds: float) -> None:
    """Call a function that is answered when the motion has ended, over a connection of its own.

    Args:
        part: the component that moves.
        call: the text.
        seconds: that it may take.

    Raises:
        DeviceProtocolError: the controller reports an error; says which.
        DeviceTimeoutError: the motion has not ended in time.
    """
    controller = part.device
    answer = controller._ask_aside(call, partial(_parsed, call), seconds)  # noqa: SLF001 - of this module
    controller._results(call, *answer)  # noqa: SLF001 - of this module


def _parsed(call: str, reply: str) -> tuple[int, str]:
    """Return the error's number, 0 for none, and the results of a reply."""
    error, comma, results = reply.partition(",")
    if not comma or (error != "0" and (results != call or not re.fullmatch(r"-?[1-9]\d*", error))):
        raise ValueError(f"0 and results, or an error number and {call!r}, were expected, got {reply!r}")
    return int(error), results


def _is_layout(layout: Any) -> bool:
    positioners = list(layout.values()) if isinstance(layout, Mapping) else []
    if not positioners or not all(isinstance(one, Mapping) and one for one in positioners):
        return False
    names = [*layout, *(name for one in positioners for name in one)]
    return all(isinstance(name, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in names) and all(
        unit in _UNITS for one in positioners for unit in one.values()
    )
