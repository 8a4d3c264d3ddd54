"""Loading a configuration: read from files, overridden, and checked before anything starts."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.testbed.configuration.checks import check
from catkit_devices.testbed.configuration.model import Configuration
from catkit_devices.testbed.configuration.overlay import Overlay
from catkit_devices.testbed.configuration.problems import combined, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bundled", "load_configuration"]


def load_configuration(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> Configuration:
    """Read a testbed's configuration and check everything that can be checked without touching hardware.

    Tables merge and values replace, in this order: each file, the ``local.toml`` beside it, then the overrides.
    Plugin directories are relative to the file that names them (for an override, to the working directory). Without
    ``testbed.name`` the testbed is called after the first file.

    Args:
        paths: TOML files, later ones over earlier ones.
        overrides: ``key=value`` texts, the value in TOML syntax: ``devices.wheel.server="slow"``.

    Raises:
        ConfigurationError: with every problem that was found: file, key, what was expected, what was found, and the
            nearest right spelling.
    """
    if not paths:
        raise ConfigurationError("expected at least one configuration file, got none")
    overlay = Overlay.of([Path(path) for path in paths], overrides)
    testbed = overlay.data.setdefault("testbed", {})
    if isinstance(testbed, dict):
        testbed.setdefault("name", re.sub(r"\W", "_", Path(paths[0]).stem, flags=re.ASCII))
    try:
        configuration = Configuration.model_validate(overlay.data)
    except ValidationError as error:
        raise combined(explain(error, Configuration, overlay)) from error
    problems = check(configuration, overlay)
    if problems:
        raise combined(problems)
    return configuration


def bundled(name: str) -> Path:
    """Return the file of a configuration that is shipped with the package, such as ``"demo"``.

    Raises:
        ConfigurationError: there is none of that name.
    """
    files = importlib.resources.files("catkit_devices.config")
    names = sorted(entry.name.removesuffix(".toml") for entry in files.iterdir() if entry.name.endswith(".toml"))
    if name not in names:
        raise ConfigurationError(
            f"expected a bundled configuration ({', '.join(names) or 'there are none'}), got {name!r}",
            suggestion=nearest(name, names),
        )
    # The package is installed as files (its data lies beside modules that are imported from there).
    return Path(str(files / f"{name}.toml"))
