"""Libraries that only some uses of a run's data need, loaded when they are used."""

from __future__ import annotations

import importlib
from typing import Any

from catkit_devices.errors import ConfigurationError

__all__ = ["extra"]


def extra(module: str, purpose: str) -> Any:
    """Import a module of the ``export`` extra.

    Args:
        module: its full name, such as ``astropy.io.fits``.
        purpose: what it is needed for; the message begins with it.

    Raises:
        ConfigurationError: it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ConfigurationError(
            f"{purpose} needs {package}, which cannot be imported ({error}): pip install 'catkit-devices[export]'"
        ) from error
