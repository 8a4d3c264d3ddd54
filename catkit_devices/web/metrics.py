"""The state of a testbed in the text format of Prometheus: for dashboards and alarms."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.status import NOT_KNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTENT_TYPE", "metrics_of"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The type of the text format of Prometheus."""
_STATES = ("closed", "open", "lost", "fault", NOT_KNOWN)
"""States of a device that are always shown, so that a query finds each of them with 0 or 1."""


class _Family:
    """Every sample of one metric."""

    def __init__(self, name: str, text: str, kind: str = "gauge") -> None:
        self.name = f"catkit_devices_{name}"
        self._head = f"# HELP {self.name} {text}\n# TYPE {self.name} {kind}\n"
        self._lines: list[str] = []

    def add(self, value: Any, **labels: str | None) -> None:
        """Add a sample; nothing if there is no number."""
        if isinstance(value, bool):
            value = int(value)
        if not isinstance(value, int | float):
            return
        shown = ",".join(f'{name}="{_escaped(text or "")}"' for name, text in labels.items())
        self._lines.append(f"{self.name}{{{shown}}} {_number(value)}\n" if shown else f"{self.name} {_number(value)}\n")

    def __str__(self) -> str:
        return self._head + "".join(self._lines) if self._lines else ""


def _escaped(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def metrics_of(status: Mapping[str, Any]) -> str:
    """Return the text for a status of a testbed (``TestbedClient.status``).

    What is not known has no sample, or is the state ``not known``: so no alarm takes it for safe.
    """
    return "".join(str(family) for family in (*_of_testbed(status), *_of_devices(status), *_of_safety(status),
                                              *_of_experiments(status), *_of_telemetry(status)))  # fmt: skip


def _of_testbed(status: Mapping[str, Any]) -> tuple[_Family, ...]:
    up = _Family("up", "Whether every process of the testbed answers.")
    up.add(not status["silent"] and status["state"] != "ending", testbed=status["name"])
    started = _Family("start_time_seconds", "When the testbed was started, in seconds since 1970 UTC.")
    started.add(status["started"], testbed=status["name"])
    return up, started


def _of_devices(status: Mapping[str, Any]) -> tuple[_Family, ...]:
    state = _Family("device_state", "1 for the state that a device is in, 0 for the others.")
    held = _Family("device_held_seconds", "For how long somebody has had the mutex of a device; 0 if nobody has.")
    waiting = _Family("device_waiters", "How many wait for the mutex of a device.")
    for name, device in status["devices"].items():
        now = NOT_KNOWN if device["state"].startswith(NOT_KNOWN) else device["state"]
        for one in dict.fromkeys((*_STATES, now)):
            state.add(one == now, device=name, state=one)
        if now != NOT_KNOWN:
            holder = device["holder"]
            held.add(0.0 if holder is None else holder["since"], device=name)
            waiting.add(len(device["waiters"]), device=name)
    return state, held, waiting


def _of_safety(status: Mapping[str, Any]) -> tuple[_Family, ...]:
    safety = status["safety"]
    tripped = _Family("safety_tripped", "Whether the safety has tripped, or is not known not to have.")
    tripped.add(safety["tripped"] is not None, testbed=status["name"])
    not_safe = _Family("safety_devices_not_safe", "How many devices that were to be made safe are not known to be.")
    not_safe.add(len(safety["not_safe"]), testbed=status["name"])
    permit = _Family("safety_permit_seconds", "For how long devices may be changed without a renewal of the permit.")
    permit.add(safety["permit"], testbed=status["name"])
    value = _Family("safety_value", "The last value of a safety check, while it is read.")
    lowest = _Family("safety_minimum", "The smallest safe value of a check.")
    highest = _Family("safety_maximum", "The largest safe value of a check.")
    passing = _Family("safety_check_passing", "Whether a check passes, and is being read.")
    age = _Family("safety_check_age_seconds", "Since when a check has not passed.")
    for name, check in safety["checks"].items():
        test = check["test"]
        labels = {"check": name, "device": test.get("device") or "", "property": test.get("property") or ""}
        if not check["silent"]:
            value.add(check["value"], **labels)
        lowest.add(test.get("minimum"), check=name)
        highest.add(test.get("maximum"), check=name)
        passing.add(check["problem"] is None and not check["silent"], check=name)
        age.add(check["age"], check=name)
    return tripped, not_safe, permit, value, lowest, highest, passing, age


def _of_experiments(status: Mapping[str, Any]) -> tuple[_Family, ...]:
    running = _Family("experiments_running", "How many experiments run.")
    shown = status["experiments"].values()
    running.add(sum(one["state"] not in ENDED for one in shown), testbed=status["name"])
    ended = _Family("experiments_ended", "How many of the last experiments have ended, by how.")
    for state in sorted(ENDED):
        ended.add(sum(one["state"] == state for one in shown), testbed=status["name"], outcome=state)
    done = _Family("experiment_steps_done", "Steps that a running experiment has done.")
    total = _Family("experiment_steps", "Steps that a running experiment has in all.")
    for one in shown:
        if one["state"] not in ENDED:
            done.add(one["done"], experiment=one["name"])
            total.add(one["total"], experiment=one["name"])
    return running, ended, done, total


def _of_telemetry(status: Mapping[str, Any]) -> tuple[_Family, ...]:
    value = _Family("telemetry", "The last reading of a quantity, while it is read.")
    age = _Family("telemetry_age_seconds", "How old that reading is.")
    for name, reading in status["telemetry"].items():
        value.add(reading["value"], quantity=name, unit=reading["unit"])
        if reading["time"]:
            age.add(max(0.0, time.time() - reading["time"]), quantity=name)
    return value, age
