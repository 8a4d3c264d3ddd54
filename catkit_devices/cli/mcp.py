"""``catkit-devices mcp``."""

from __future__ import annotations

from typing import Annotated

import typer

from catkit_devices.cli.options import ConfigFiles, Overrides, Runs, Simulate, TestbedName

__all__ = ["EXAMPLES", "mcp"]

EXAMPLES = (
    "catkit-devices mcp",
    "catkit-devices mcp --testbed bench --grant assistant --experiment scan.py",
    "catkit-devices mcp --config bench.toml --simulate --grant assistant",
)


def mcp(
    testbed: TestbedName = None,
    configs: ConfigFiles = [],
    overrides: Overrides = [],
    simulate: Simulate = None,
    runs: Runs = None,
    grant: Annotated[
        str | None,
        typer.Option(
            "--grant", metavar="NAME", show_default=False,
            help="Let the agent control the testbed, under this name; else it can only look.",
        ),
    ] = None,
    experiments: Annotated[
        list[str],
        typer.Option(
            "--experiment", "-e", metavar="FILE[:CLASS]", show_default=False,
            help="An experiment that the agent may start; may be repeated.",
        ),
    ] = [],
) -> None:  # fmt: skip
    """Let an agent use a testbed by the Model Context Protocol, over standard input and output.

    The program of the agent starts this. When it closes standard input, or ends, what the agent holds is made safe.
    """
    import asyncio

    from catkit_devices.cli.attaching import attach_or_start
    from catkit_devices.cli.serve import offered
    from catkit_devices.errors import ConfigurationError

    try:
        from catkit_devices.web import serve_agent
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "anyio"):
            raise
        raise ConfigurationError(
            f"agents need {error.name!r}, which is not installed: pip install 'catkit-devices[mcp]'"
        ) from error

    kinds = offered(experiments)
    with attach_or_start(testbed, configs, overrides, simulate=simulate, runs=runs) as client:
        asyncio.run(serve_agent(client, kinds, grant))
