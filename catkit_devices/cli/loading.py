"""Loading the experiment that ``FILE[:CLASS]`` names."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from catkit_devices.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from types import ModuleType

    from catkit_devices.testbed.experiments.experiment import Experiment

__all__ = ["load_experiment"]


def load_experiment(place: str) -> type[Experiment]:
    """Return the experiment in ``FILE``; if there are several, the one that ``FILE:CLASS`` names.

    The file is imported as ``python FILE`` would run it: its directory comes first on the import path, so that it
    finds what lies beside it and so that other processes find it.

    Raises:
        ConfigurationError: the file is missing or cannot be imported (with the reason as ``__cause__``), or it does
            not define the experiment.
    """
    file, class_name = _split(place)
    if not file.is_file():
        raise ConfigurationError("no such file", file=str(file))
    module = _import(file.resolve())
    found: dict[str, type[Experiment]] = {
        name: thing for name, thing in vars(module).items() if _is_experiment(thing, module)
    }
    if class_name is None:
        class_name = _only(found, file)
    elif class_name not in found:
        raise ConfigurationError(
            f"expected an experiment ({', '.join(found) or 'there are none'}), got {class_name!r}",
            file=str(file), suggestion=nearest(class_name, found),
        )  # fmt: skip
    experiment = found[class_name]
    missing = sorted(getattr(experiment, "__abstractmethods__", ()))
    if missing:
        raise ConfigurationError(f"{class_name} has no method {', '.join(missing)}", file=str(file))
    return experiment


def _only(found: dict[str, type[Experiment]], file: Path) -> str:
    """Return the name of the only experiment; base classes that cannot run do not count when others can."""
    names = [name for name, thing in found.items() if not inspect.isabstract(thing)] or list(found)
    if len(names) == 1:
        return names[0]
    listed = f"found {len(names)} ({', '.join(names)}): say which, as {file}:{names[0]}" if names else "found none"
    raise ConfigurationError(f"expected one experiment, {listed}", file=str(file))


def _split(place: str) -> tuple[Path, str | None]:
    match = re.fullmatch(r"(.+):([A-Za-z_]\w*)", place)
    if match is None or Path(place).is_file():
        return Path(place), None
    return Path(match[1]), match[2]


def _import(file: Path) -> ModuleType:
    name = file.stem
    if not name.isidentifier():
        raise ConfigurationError("expected a file name that can be imported, such as scan.py", file=str(file))
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as error:  # whatever a user's file does when it is imported
        text = f"cannot be imported: {type(error).__name__}: {error}{_line(error, file)}"
        raise ConfigurationError(text, file=str(file)) from error
    if Path(str(getattr(module, "__file__", ""))).resolve() != file:
        raise ConfigurationError(
            f"has the name of another module ({module.__name__}, {getattr(module, '__file__', 'built in')}): rename it",
            file=str(file),
        )
    return module


def _line(error: BaseException, file: Path) -> str:
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f" (line {lines[-1]})" if lines else ""


def _is_experiment(thing: object, module: ModuleType) -> bool:
    from catkit_devices.testbed.experiments.experiment import Experiment

    return (
        isinstance(thing, type)
        and issubclass(thing, Experiment)
        and thing.__module__ == module.__name__
        and not thing.__name__.startswith("_")
    )
