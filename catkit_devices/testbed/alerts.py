"""Notifications that the configuration asks for: a command or a webhook, at a trip, a fault and a failed run.

They are sent from a thread of their own, each within a limited time: nothing that protects devices, and no run, ever
waits for them. One that fails is written to the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from catkit_devices._base.standby import all_at_once
from catkit_devices.errors import CatkitDevicesError, SafetyError, StopExperiment, WaitTimeoutError, in_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from catkit_devices.testbed.configuration.model import NotificationsConfiguration

__all__ = ["Alerts"]

_MOST = 100
"""How many wait to be sent; more are left out, and the log says so."""
_LAST_TIMEOUT = 5.0
"""Seconds for what still waits when the testbed ends."""
_SHOWN = 500
"""Characters of what a command that failed has written, for the log."""


class Alerts:
    """Sends notifications, one after the other.

    Args:
        wanted: what the configuration says.
        testbed: its name.
        say: called with a level of ``logging`` and a text, for the log.
    """

    def __init__(self, wanted: NotificationsConfiguration, testbed: str, say: Callable[[int, str], None]) -> None:
        self._wanted = wanted
        self._testbed = testbed
        self._say = say
        self._ways: dict[str, Callable[[dict[str, Any]], None]] = {}
        if wanted.command:
            self._ways["command"] = self._run_command
        if wanted.webhook is not None:
            self._ways["webhook"] = self._call_webhook
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST)
        self._given_up = False
        self._process: subprocess.Popen[bytes] | None = None
        """The command that runs."""
        self._thread: threading.Thread | None = None
        if self._ways:
            self._thread = threading.Thread(target=self._send_all, name="alerts", daemon=True)
            self._thread.start()

    def tell(self, event: str, facts: dict[str, Any]) -> None:
        """Send a notification of an event, if one is wanted; returns at once."""
        found = _alert(event, facts)
        if found is None or not self._ways or found[0] not in self._wanted.events:
            return
        kind, text, more = found
        alert = {
            "testbed": self._testbed,
            "event": kind,
            "text": f"{self._testbed}: {text}",
            "time": time.time(),
            **more,
        }
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            self._say(logging.ERROR, f"a notification was left out, {_MOST} wait already: {text}")

    def end(self) -> None:
        """Send what waits, within a limited time, and end; a command that still runs then is killed."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(_LAST_TIMEOUT)
        self._given_up = True
        if self._process is not None:
            _kill(self._process)

    def _send_all(self) -> None:
        while (alert := self._waiting.get()) is not None and not self._given_up:
            sends = all_at_once({way: partial(send, alert) for way, send in self._ways.items()}, "notify")
            deadline = time.monotonic() + self._wanted.timeout + 1.0  # each ends by itself in that time, as a rule
            for way, send in sends.items():
                if not send.wait(max(0.0, deadline - time.monotonic())):
                    problem = f"no answer in {self._wanted.timeout:g} s"
                elif send.failure is not None:
                    problem = in_one_line(send.failure)
                else:
                    continue
                self._say(logging.ERROR, f"notification by {way} failed ({problem}): {alert['text']}")

    def _run_command(self, alert: dict[str, Any]) -> None:
        """Run the command of the configuration with the notification on its stdin, and kill it if it takes too long."""
        about = {f"CATKIT_DEVICES_{key.upper()}": str(alert[key]) for key in ("testbed", "event", "text")}
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                self._wanted.command, stdin=subprocess.PIPE, stdout=output, stderr=output,
                env={**os.environ, **about}, start_new_session=os.name == "posix",
            )  # fmt: skip
            self._process = process
            try:
                process.communicate(json.dumps(alert).encode(), self._wanted.timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise WaitTimeoutError(f"it did not end in {self._wanted.timeout:g} s, and was killed") from None
            finally:
                self._process = None
            if process.returncode:
                output.seek(0)
                said = output.read().decode("utf-8", "replace").strip()[-_SHOWN:]
                raise CatkitDevicesError(f"exit code {process.returncode}{f': {said}' if said else ''}")

    def _call_webhook(self, alert: dict[str, Any]) -> None:
        from urllib.error import HTTPError
        from urllib.request import Request, urlopen

        request = Request(  # noqa: S310 - the configuration allows http and https only
            str(self._wanted.webhook), json.dumps(alert).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urlopen(request, timeout=self._wanted.timeout):  # noqa: S310 - as above
                pass
        except HTTPError as error:
            with error:  # it holds the connection
                raise CatkitDevicesError(f"it answered with status {error.code}") from None


def _alert(event: str, facts: dict[str, Any]) -> tuple[str, str, dict[str, Any]] | None:
    """Return the kind of a notification, its text and further facts; None if nobody is to be told of such an event."""
    if event == "safety_tripped":
        return "trip", f"safety tripped: {facts.get('check')}: {facts.get('problem')}", {}
    if event == "device_fault":
        return "fault", str(facts.get("problem")), {"device": facts.get("device")}
    error = facts.get("error")
    if event == "experiment_finished" and error is not None and not isinstance(error, (SafetyError, StopExperiment)):
        run = str(facts.get("run"))
        return "failed run", f"{facts.get('experiment')} failed: {in_one_line(error)} (run {run})", {"run": run}
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and what it has started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LAST_TIMEOUT)
