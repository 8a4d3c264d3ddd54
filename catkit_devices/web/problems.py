"""What a request that fails is answered: a problem as RFC 9457 describes it, with the message of the error."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    DeadlockError,
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
    MutexBrokenError,
    MutexNotHeldError,
    MutexTimeoutError,
    SafetyError,
    ServerError,
    SessionEndedError,
    WaitTimeoutError,
    in_one_line,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Problem", "problem_of", "problem_response"]

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (DeviceValueError, 422),
    (MutexTimeoutError, 423),
    (MutexBrokenError, 409),
    (MutexNotHeldError, 409),
    (DeadlockError, 409),
    (SafetyError, 409),
    (DeviceFaultError, 409),
    (SessionEndedError, 410),
    (DeviceTimeoutError, 504),
    (WaitTimeoutError, 504),
    (DeviceOpenError, 502),
    (DeviceDisconnectedError, 502),
    (DeviceProtocolError, 502),
    (ServerError, 503),
    (ConfigurationError, 400),
    (CatkitDevicesError, 409),
)
"""The status of the answer for each error; the first that fits counts."""
_OTHER = 500
"""The status for what is no error of this project: a driver's mistake."""


class Problem(CatkitDevicesError):  # noqa: N818 - it is what RFC 9457 calls it
    """A request is refused; the text says why.

    Args:
        status: of the answer.
        detail: what was expected, and what was found.
        **facts: further members of the answer.
    """

    def __init__(self, status: int, detail: str, **facts: Any) -> None:
        super().__init__(detail, status=status, facts=facts)

    status: int
    facts: dict[str, Any]


def problem_of(error: BaseException) -> dict[str, Any]:
    """Return the members of a problem (RFC 9457) for an error."""
    if isinstance(error, Problem):
        status, kind, facts = error.status, HTTPStatus(error.status).phrase, error.facts
    else:
        status = next((code for one, code in _STATUS if isinstance(error, one)), _OTHER)
        kind, facts = type(error).__name__, {}
    text = str(error) if isinstance(error, CatkitDevicesError) else in_one_line(error)
    notes = [note for note in getattr(error, "__notes__", ()) if note not in text]
    return {
        "type": f"urn:catkit-devices:{kind.lower().replace(' ', '-')}",
        "title": kind,
        "status": status,
        "detail": text,
        **({"notes": notes} if notes else {}),
        **facts,
    }


def problem_response(error: BaseException, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for an error."""
    problem = problem_of(error)
    return Response(json.dumps(problem), problem["status"], dict(headers or {}), media_type="application/problem+json")
