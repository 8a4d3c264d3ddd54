"""What a shell offers when the user presses tab: testbeds, devices, runs. Nothing here may fail, or take long."""

from __future__ import annotations

import contextlib
import os

import typer

__all__ = ["devices_of_testbed", "running", "runs_kept"]


_ANSWER_TIMEOUT = 0.5
"""Seconds for the answers of the testbeds."""


def running(incomplete: str) -> list[str]:
    """Return the testbeds that run."""
    with contextlib.suppress(Exception):
        from catkit_devices.testbed.processes.finding import running_testbeds

        return [name for name in running_testbeds(_ANSWER_TIMEOUT) if name.startswith(incomplete)]
    return []


def devices_of_testbed(context: typer.Context, incomplete: str) -> list[str]:
    """Return the devices of the testbed that runs, and after a dot the members of one of them."""
    with contextlib.suppress(Exception):
        from catkit_devices._base.paths import words
        from catkit_devices.cli.attaching import attach

        client = attach(context.params.get("testbed"))
        device, dot, _ = incomplete.partition(".")
        if not dot:
            return [name for name in client.devices if name.startswith(incomplete)]
        description = client.devices[device].describe()
        kind = "commands" if context.info_name == "call" else "properties"
        # Brackets and quotes mean something to a shell: they are offered only after the user has typed one.
        members = description[kind] if "[" in incomplete else map(".".join, map(words, description[kind]))
        return [name for name in (f"{device}.{member}" for member in members) if name.startswith(incomplete)]
    return []


def runs_kept(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the recorded runs."""
    with contextlib.suppress(Exception):
        from catkit_devices.datalog import find_runs

        root = context.params.get("kept") or os.environ.get("CATKIT_DEVICES_RUNS") or "runs"
        names = [path.name for path in find_runs(root)]
        return [name for name in ["last", *reversed(names)] if name.startswith(incomplete)]
    return []
