"""Which testbed a command is about: one that runs, or one that is started for this command alone."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from catkit_devices.errors import CatkitDevicesError, ConfigurationError, ServerNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.configuration.model import Configuration

__all__ = ["attach", "attach_or_start", "find", "runs", "wait_for_end", "without_exit"]


def attach(name: str | None, configs: Sequence[Path] = (), overrides: Sequence[str] = ()) -> TestbedClient:
    """Join a running testbed: the one of that name, else that of the configuration, else the only one that runs.

    Raises:
        ServerNotFoundError: none runs.
        ConfigurationError: several do; says that one must be named.
    """
    if name is None and configs:
        from catkit_devices.testbed import load_configuration

        name = load_configuration(configs, overrides).testbed.name
    return _attach(_only() if name is None else name)


@contextmanager
def attach_or_start(
    name: str | None,
    configs: Sequence[Path],
    overrides: Sequence[str],
    *,
    simulate: bool | None = None,
    runs: Path | None = None,
    join: bool = True,
) -> Iterator[TestbedClient]:
    """Join a running testbed as :func:`attach` does; if the testbed of the configuration is not running, start it.

    Args:
        name: of a running testbed.
        configs: configuration files.
        overrides: of keys of the configuration.
        simulate: whether its instruments must be simulated (True) or real (False).
        runs: where a testbed that is started keeps its runs.
        join: whether one that runs is joined; else another is started from the configuration.

    Raises:
        ServerNotFoundError: there is no configuration, and none runs.
        ConfigurationError: several run and none was named; or what runs is not what was asked for.
    """
    configuration: Configuration | None = None
    if configs and name is None:
        from catkit_devices.testbed import load_configuration

        configuration = load_configuration(configs, overrides)
    client = find(name, configuration) if join or configuration is None else None
    if client is not None:
        _check(client, overrides, simulate)
        yield client
    elif configuration is not None:
        from catkit_devices.testbed import Testbed

        with Testbed(configuration, simulate=simulate, runs=runs) as testbed:
            yield testbed


def find(name: str | None, configuration: Configuration | None) -> TestbedClient | None:
    """Return the running testbed that is meant; None if the testbed of the configuration does not run.

    Raises:
        ServerUnresponsiveError: it does not answer: its instruments may be in use.
    """
    if configuration is None:
        return attach(name)
    try:
        return _attach(configuration.testbed.name)
    except ServerNotFoundError:
        if runs(configuration.testbed.name):
            raise  # several of that name
        return None


def runs(name: str) -> bool:
    """Return whether one testbed of that name runs, or several."""
    from catkit_devices.testbed.processes.finding import running_testbeds

    # If there are several, they are listed by the names of their servers: the name with a number after it.
    return any(name in (found, found.rpartition("-")[0]) for found in running_testbeds())


def _attach(name: str) -> TestbedClient:
    # As Testbed.attach does, without what only starting a testbed needs: a shell prompt may ask for the status.
    from catkit_devices.testbed.client import TestbedClient
    from catkit_devices.testbed.processes.finding import find_testbed

    return TestbedClient(*find_testbed(name))


def _only() -> str:
    from catkit_devices.testbed.processes.finding import running_testbeds

    names = running_testbeds()
    if not names:
        raise ServerNotFoundError(
            "no testbed is running: start one with `catkit-devices start --config FILE`, or say --config FILE"
        )
    if len(names) > 1:
        raise ConfigurationError(f"several testbeds are running: say which of {', '.join(names)}")
    return names[0]


def _check(client: TestbedClient, overrides: Sequence[str], simulate: bool | None) -> None:
    """Refuse options that a running testbed cannot follow any more."""
    if overrides:
        raise ConfigurationError(
            f"testbed {client.name!r} is running already: --set changes nothing there", key=overrides[0]
        )
    simulated = client.layout.simulation is not None
    if simulate is not None and simulate != simulated:
        raise ConfigurationError(
            f"testbed {client.name!r} is running already, with {'simulated' if simulated else 'real'} instruments"
        )


@contextmanager
def without_exit(what: str) -> Iterator[None]:
    """Raise an error if a driver ends the program (``sys.exit``): else this command would end without a message.

    If a signal (SIGTERM) has asked for the end, the program ends.
    """
    try:
        yield
    except SystemExit as end:
        if end.code in _OF_SIGNALS:
            raise
        raise CatkitDevicesError(
            f"{what} tried to end the program (SystemExit: {end.code}); its driver must raise an error that says what "
            "is wrong"
        ) from end


_OF_SIGNALS = (128 + 1, 128 + 15)
"""Exit codes of a program that is ended by SIGHUP or SIGTERM."""


def wait_for_end(client: TestbedClient) -> None:
    """Wait for Ctrl-C, SIGTERM, or the end of the testbed."""
    import queue
    import signal

    from catkit_devices.cli.output import warn
    from catkit_devices.testbed.processes.finding import LAYOUT
    from catkit_devices.testbed.trip import UNREACHABLE

    stop: queue.SimpleQueue[None] = queue.SimpleQueue()  # an Event's lock may be taken where the handler strikes
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.put(None))
    while True:
        with suppress(queue.Empty):
            stop.get(timeout=_LOOK)
            return
        try:
            ending = client.manager.get_dict(LAYOUT).get("ending")
        except UNREACHABLE:
            ending = True
        if ending:
            warn(f"testbed {client.name!r} has ended")
            return


_LOOK = 0.5
"""Seconds between two looks whether the testbed still runs; some systems interrupt no longer wait."""
