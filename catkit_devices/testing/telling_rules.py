"""Rules for descriptions and errors: a driver tells what it can do, and what went wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from catkit_devices._base.paths import get_at
from catkit_devices.simulation import Fault
from catkit_devices.testing.fault_rules import error_problems
from catkit_devices.testing.members import quantities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from catkit_devices.testing.members import Member
    from catkit_devices.testing.rig import Rig

__all__ = ["describes_itself", "raises_what_travels"]


def describes_itself(rig: Rig) -> list[str]:
    """Return what is missing in ``describe()`` of the open device."""
    device = rig.device
    described, declared = device.describe(), quantities(device)
    problems = []
    for name, facts in described["properties"].items():
        if not facts["doc"]:
            problems.append(f"{name} has no doc")
        if facts["type"] == "float" and not facts["unit"]:
            problems.append(f"{name} has no unit (write 'dimensionless' if it has none)")
        if facts["type"] in ("int", "float") and facts["writable"] and None in (facts["limits"] or (None,)):
            problems.append(f"{name} can be set and has no range: limits=(lowest, highest)")
        if name not in declared and facts["readable"]:
            value = get_at(device, name)
            plain = isinstance(value, int) and not isinstance(value, bool)
            if isinstance(value, float) or (plain and facts["writable"]):
                problems.append(f"{name} is a number without unit and range: declare it with Control or Measurement")
    problems += [f"{name}() has no doc" for name, facts in described["commands"].items() if not facts["doc"]]
    try:
        json.dumps(described)
    except (TypeError, ValueError) as error:
        problems.append(f"describe() must return data that JSON can express: {error}")
    return problems


def raises_what_travels(rig: Rig, exempt: Sequence[str]) -> list[str]:
    """Make every operation fail; return what is wrong with the errors.

    Args:
        rig: with its device closed.
        exempt: members that are left out.
    """
    problems: list[str] = []
    for member in rig.members():
        if member.name not in exempt:
            problems += _problems(rig, member, "on a closed device")
    with rig.opened():
        for member in rig.members():
            if rig.tap is None or not member.known:
                continue
            rig.tap.line.inject(Fault("no_reply"))
            problems += _problems(rig, member, "without a reply")
            rig.repair()
    return problems


def _problems(rig: Rig, member: Member, when: str) -> list[str]:
    try:
        member.run(rig.device)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises
        return [f"{member} {when}: {problem}" for problem in error_problems(error, rig.device)]
    return []
