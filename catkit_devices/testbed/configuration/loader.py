"""Loading a configuration: read from files, overridden, and checked before anything starts."""

from __future__ import annotations

import copy
import importlib.resources
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from catkit_devices.errors import ConfigurationError, nearest
from catkit_devices.testbed.configuration.checks import check
from catkit_devices.testbed.configuration.model import Configuration
from catkit_devices.testbed.configuration.overlay import Overlay
from catkit_devices.testbed.configuration.problems import combined, explain

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bundled", "examine", "load_configuration", "read"]


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
    configuration, problems = examine(read(paths, overrides))
    if configuration is None or problems:
        raise combined(problems)
    return configuration


def read(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> Overlay:
    """Return what the files of a configuration say.

    Args:
        paths: TOML files, as for :func:`load_configuration`.
        overrides: likewise.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    if not paths:
        raise ConfigurationError("expected at least one configuration file, got none")
    overlay = Overlay.of([Path(path) for path in paths], overrides)
    testbed = overlay.data.setdefault("testbed", {})
    if isinstance(testbed, dict):
        testbed.setdefault("name", re.sub(r"\W", "_", Path(paths[0]).stem, flags=re.ASCII))
    return overlay


def examine(overlay: Overlay) -> tuple[Configuration | None, list[ConfigurationError]]:
    """Return the configuration that tables declare, and everything that is wrong with it.

    Keys that are wrong in form do not keep the rest from being looked at: it is checked without them. The configuration
    that is returned has them not; it is None if nothing is left that could be checked.
    """
    try:
        configuration = Configuration.model_validate(overlay.data)
    except ValidationError as error:
        wrong = explain(error, Configuration, overlay)
        rest, removed = _without_wrong(overlay.data, error)
        return rest, [*wrong, *_of_the_rest(rest, removed, overlay, wrong)]
    return configuration, check(configuration, overlay)


_ROUNDS = 5
"""How often what is wrong is taken out: without one key a table may lack something, and then goes as a whole."""


def _without_wrong(data: dict[str, Any], error: ValidationError) -> tuple[Configuration | None, set[tuple[str, ...]]]:
    """Return the configuration without what is wrong in form, and the paths of what was taken out."""
    data = copy.deepcopy(data)
    removed: set[tuple[str, ...]] = set()
    for _ in range(_ROUNDS):
        for detail in error.errors(include_url=False):
            path = _reachable(data, detail["loc"])
            # What is missing makes the table that lacks it unusable.
            path = path if detail["type"] != "missing" or path[-1:] == detail["loc"][-1:] else path[:2]
            if not path or path[:2] == ("testbed", "plugins"):
                return None, removed  # without plugins, each of their drivers would be reported, too
            removed.add(path)
            table: Any = data
            for part in path[:-1]:
                table = table.get(part, {})
            table.pop(path[-1], None)
        try:
            return Configuration.model_validate(data), removed
        except ValidationError as another:
            error = another
    return None, removed


def _reachable(data: Any, path: Sequence[Any]) -> tuple[str, ...]:
    """Return the path as far as it leads through tables: an item of a list goes with its list."""
    found: list[str] = []
    for part in path:
        if not isinstance(data, dict) or part not in data:
            break
        found.append(part)
        data = data[part]
    return tuple(found)


def _of_the_rest(
    rest: Configuration | None, removed: set[tuple[str, ...]], overlay: Overlay, wrong: Sequence[ConfigurationError]
) -> list[ConfigurationError]:
    """Return what else is wrong, without what is so only because something was taken out."""
    if rest is None:
        return []
    gone = {path[1] for path in removed if path[0] == "devices" and len(path) == 2}
    gone |= {alias for name in gone for alias in _aliases(overlay.data["devices"][name])}
    tables = {".".join(path[:2]) for path in removed}
    keys = {".".join(path) for path in removed} | {one.key for one in wrong}
    return [
        problem
        for problem in check(rest, overlay)
        if not any(f"got {name!r}" in problem.problem for name in gone)
        and problem.key not in keys | tables
        and not (problem.problem.startswith("is missing") and str(problem.key).rpartition(".")[0] in tables)
    ]


def _aliases(table: Any) -> list[str]:
    aliases = table.get("aliases", []) if isinstance(table, dict) else []
    return [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []


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
