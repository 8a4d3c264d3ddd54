"""Modules of tests that a child process imports only if it uses them."""

import sys
import threading
from importlib import import_module
from pathlib import Path

HERE = str(Path(__file__).parent)
ONE_AT_A_TIME = threading.RLock()


def whole(name):
    """Return the ``__getattr__`` of what stands in the place of a module: it asks the module itself, imported then."""

    def get(attribute):
        with ONE_AT_A_TIME:
            if HERE in sys.path:
                sys.path.remove(HERE)
            if str(sys.modules[name].__file__).startswith(HERE):
                del sys.modules[name]
            return getattr(import_module(name), attribute)

    return get
